package apiserver

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// outageTests: a server that cannot be reached.
var outageTests = map[string]func(*env){
	"down at start, refused":                 func(s *env) { downAtStart(s, s.Proxy.Refuse, "connection refused") },
	"down at start, closed immediately":      func(s *env) { downAtStart(s, func() { s.Proxy.Down(true) }, "cannot reach API server") },
	"down at start, 503":                     func(s *env) { downAtStart(s, func() { s.Proxy.Set(lab.Rule{Code: 503}) }, "answered 503") },
	"down at start, half open":               halfOpenAtStart,
	"down for a minute":                      downForAMinute,
	"flapping":                               flapping,
	"half open, detected by the kernel":      guardedByKernel,
	"half open while watching":               halfOpenWhileWatching,
	"half open while writing":                halfOpenWhileWriting,
	"restart of the daemon during an outage": restartMeanwhile,
}

// The daemon starts before the server: it logs once why it is not ready, and is ready when
// the server is available.
func downAtStart(s *env, breakIt func(), why string) {
	breakIt()
	name := s.ask()
	s.launch()
	s.awaitLog(soon, lostText, why)
	s.showsProblem("0 mounts ready", why)
	s.hold(8 * time.Second)
	s.notReady()
	s.isMounted(name, false)
	s.clearFaults()
	s.ready(resume)
	s.Await(name, "mounted")
	s.back(1)
	s.logged(why, "back")
	s.onceMounted(name)
}

// clearFaults ends all faults of the proxy.
func (s *env) clearFaults() {
	s.t.Helper()
	s.Proxy.Clear()
	s.Must(s.Proxy.Accept())
}

// A connection that is accepted and then dead must not block the start permanently.
func halfOpenAtStart(s *env) {
	s.Proxy.HalfOpen(true)
	s.launch()
	s.awaitLog(soon, lostText)
	s.showsProblem("cannot reach API server")
	s.notReady()
	s.clearFaults()
	s.ready(resume)
	s.back(1)
}

// While the server is down, nothing changes on the node. Changes during that time are
// processed when it is back, from the old position and without another list.
func downForAMinute(s *env) {
	s.start()
	stays, goes, deleted := s.mounted(), s.mounted(), s.mounted()
	first, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
	s.Must(err)
	s.Proxy.Refuse()
	s.lost(1)
	s.showsProblem("3 mounts ready for 3 ClientMounts")
	s.Proxy.ClearRequests()
	comes := s.ask()
	s.Want(goes, "unmounted")
	s.Remove(deleted)
	s.hold(time.Minute)
	for name, want := range map[string]bool{stays: true, goes: true, deleted: true, comes: false} {
		s.isMounted(name, want)
	}
	s.clearFaults()
	began := time.Now()
	s.back(1)
	s.t.Logf("the watch continues %.1f s after the server's return", time.Since(began).Seconds())
	s.Await(comes, "mounted")
	s.Await(goes, "unmounted")
	if err := s.Cluster.WaitGone(s.Context(soon), "ClientMount", s.Node, deleted); err != nil {
		s.t.Error(err)
	}
	for name, want := range map[string]bool{stays: true, goes: false, deleted: false, comes: true} {
		s.isMounted(name, want)
	}
	s.resumed(first, 0)
	s.logged("", "back")
	s.onceMounted(stays)
}

func isWatch(r *lab.Request) bool { return r.Class == lab.ClassWatch }

// resumed fails the test unless the requests since the last ClearRequests contain that many
// lists, and the first watch continues from the position of the previous one or later.
func (s *env) resumed(before *lab.Request, lists int) {
	s.t.Helper()
	if n := s.Proxy.Count(lab.ClassList); n != lists {
		s.t.Errorf("%d lists, want %d", n, lists)
	}
	if n := s.Proxy.Count(lab.ClassDiscovery); n != 0 {
		s.t.Errorf("%d discoveries", n)
	}
	watch, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
	s.Must(err)
	if number(s.t, watch.ResourceVersion) < number(s.t, before.ResourceVersion) {
		s.t.Errorf("the watch continued from %s, before %s", watch.ResourceVersion, before.ResourceVersion)
	}
}

func flapping(s *env) {
	s.start()
	stays := s.mounted()
	first, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
	s.Must(err)
	s.Proxy.ClearRequests()
	var comes []string
	for i := range 10 {
		s.Proxy.Refuse()
		wait.Pass(s.t, 2*time.Second, "the outage")
		s.Must(s.Proxy.Accept())
		if i == 2 || i == 7 {
			comes = append(comes, s.ask())
		}
		wait.Pass(s.t, 2*time.Second, "the time between outages")
		s.isMounted(stays, true)
	}
	for _, name := range comes {
		s.Await(name, "mounted")
		s.onceMounted(name)
	}
	wait.Within(s.t, resume, "a status line without a problem", s.answers)
	s.resumed(first, 0)
	if lost, back := s.count(lostText), s.count(backText); lost != back || lost < 1 || lost > 10 {
		s.t.Errorf("lost %d times and back %d times in 10 outages", lost, back)
	}
	s.onceMounted(stays)
}

// The network is interrupted without the loss of a connection: no event is lost.
func halfOpenWhileWatching(s *env) {
	s.start()
	stays := s.mounted()
	s.Proxy.ClearRequests()
	s.Proxy.HalfOpen(true)
	comes := s.ask()
	s.Want(stays, "unmounted")
	s.hold(10 * time.Second)
	s.isMounted(stays, true)
	s.clearFaults()
	s.Await(comes, "mounted")
	s.Await(stays, "unmounted")
	if n := s.Proxy.Count(lab.ClassList, lab.ClassDiscovery); n != 0 {
		s.t.Errorf("%d lists and discoveries after a pause", n)
	}
	s.logged()
}

// A write without a response ends at its time limit and is retried.
func halfOpenWhileWriting(s *env) {
	s.start(s.Settings("[kubernetes]", `request_timeout = "2s"`))
	s.mounted()
	s.Proxy.Set(lab.Rule{Class: lab.ClassPatchStatus, Times: 1, Delay: time.Hour})
	name := s.ask()
	if _, err := s.Proxy.WaitRequest(s.Context(soon), func(r *lab.Request) bool {
		return r.Class == lab.ClassPatchStatus && r.Code() == 0
	}); err != nil {
		s.t.Fatal(err)
	}
	s.Proxy.HalfOpen(true)
	s.isMounted(name, true)
	s.awaitLog(soon, "cannot write the status", "did not respond within")
	s.clearFaults()
	s.Await(name, "mounted")
	s.onceMounted(name)
}

// A daemon that is restarted while the server is down keeps the mounts, and processes the
// changes when the server is back.
func restartMeanwhile(s *env) {
	s.start()
	stays, goes := s.mounted(), s.mounted()
	s.Proxy.Refuse()
	s.lost(1)
	s.Stop(s.daemon)
	s.Remove(goes)
	s.launch()
	s.awaitLog(soon, lostText)
	s.hold(3 * time.Second)
	s.isMounted(stays, true)
	s.isMounted(goes, true)
	s.notReady()
	s.clearFaults()
	s.ready(resume)
	if err := s.Cluster.WaitGone(s.Context(soon), "ClientMount", s.Node, goes); err != nil {
		s.t.Error(err)
	}
	s.isMounted(goes, false)
	s.isMounted(stays, true)
	s.onceMounted(stays)
}

// A peer that disappears cannot be simulated on the loopback device, because its kernel
// still acknowledges data. So this test checks the socket options by which the daemon's
// kernel detects a dead peer.
func guardedByKernel(s *env) {
	s.start()
	s.mounted()
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", s.daemon.PID))
	s.Must(err)
	process, err := unix.PidfdOpen(s.daemon.PID, 0)
	s.Must(err)
	defer unix.Close(process)
	seen := 0
	for _, path := range fds {
		if link, err := os.Readlink(path); err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		var number int
		if _, err := fmt.Sscan(filepath.Base(path), &number); err != nil {
			s.t.Fatal(err)
		}
		fd, err := unix.PidfdGetfd(process, number, 0)
		s.Must(err)
		defer unix.Close(fd)
		if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || kind == unix.AF_UNIX {
			continue
		}
		seen++
		for _, o := range []struct {
			name                 string
			level, option        int
			atLeast, atMost, got int
		}{
			{name: "SO_KEEPALIVE", level: unix.SOL_SOCKET, option: unix.SO_KEEPALIVE, atLeast: 1, atMost: 1},
			{name: "TCP_KEEPIDLE in s", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPIDLE, atLeast: 30, atMost: 120},
			{name: "TCP_USER_TIMEOUT in ms", level: unix.IPPROTO_TCP, option: unix.TCP_USER_TIMEOUT, atLeast: 10_000, atMost: 60_000},
		} {
			if o.got, err = unix.GetsockoptInt(fd, o.level, o.option); err != nil || o.got < o.atLeast || o.got > o.atMost {
				s.t.Errorf("%s is %d (%v), want %d to %d", o.name, o.got, err, o.atLeast, o.atMost)
			}
		}
	}
	if seen != 1 {
		s.t.Errorf("the daemon has %d connections, want 1", seen)
	}
}
