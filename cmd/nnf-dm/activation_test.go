package main

import (
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// unit is a socket unit: the socket exists before the daemon starts and after it exits.
type unit struct {
	t    *testing.T
	path string
	file *os.File
}

func newUnit(t *testing.T) *unit {
	t.Helper()
	path := filepath.Join(short(t), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	file, err := l.File()
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return &unit{t, path, file}
}

func (u *unit) launch(watchdog time.Duration, args ...string) *proc {
	u.t.Helper()
	return launch(u.t, u.path, lab.Spec{Listen: u.file, Watchdog: watchdog, Args: append([]string{"--simulated"}, args...)})
}

// wanted waits until a client connects, like systemd.
func (u *unit) wanted(stop <-chan struct{}) bool {
	for {
		select {
		case <-stop:
			return false
		default:
		}
		fds := []unix.PollFd{{Fd: int32(u.file.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 20); n > 0 && err == nil {
			return true
		}
	}
}

// The daemon uses the socket of the service manager and does not remove it.
func TestActivated(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	client := dial(t, u.path)
	answered := make(chan error, 1)
	go func() { answered <- call(t, client) }() // before the daemon starts
	p := u.launch(0, "--idle-timeout=0s")
	if err := <-answered; err != nil {
		t.Error(err)
	}
	p.logged(`msg=started .* socket=` + u.path + ` activated=true`)
	p.signal(syscall.SIGTERM)
	p.ended(0)
	if c, err := net.Dial("unix", u.path); err != nil {
		t.Errorf("the socket of the service manager was removed: %v", err)
	} else {
		c.Close()
	}
	if _, err := os.Lstat(u.path + ".lock"); err == nil {
		t.Error("lock file for the socket of the service manager")
	}
}

// The daemon exits with 0 when it is idle. Neither watchdog pings nor a connected client
// without a request prevent this.
func TestIdleExit(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	p := u.launch(100*time.Millisecond, "--idle-timeout=400ms")
	p.pings(1)
	conn := dial(t, u.path)
	finish := held(t, conn)
	p.pings(1)
	if _, err := finish(); err != nil {
		t.Error(err)
	}
	p.ended(0)
	p.logged(`msg="idle, exiting; the next client starts the daemon again" event=dm-idle`)
	p.logged(`event=stopped exit_code=0`)
	// The open connection continues with the next daemon.
	next := u.launch(0, "--idle-timeout=0s")
	if err := call(t, conn); err != nil {
		t.Errorf("a client across the exit: %v", err)
	}
	next.signal(syscall.SIGTERM)
	next.ended(0)
}

// Without socket activation, nothing would start the daemon again.
func TestNoIdleExitWithoutActivation(t *testing.T) {
	t.Parallel()
	p := launch(t, filepath.Join(short(t), "s"), lab.Spec{Args: []string{"--simulated", "--idle-timeout=1ms"}, Watchdog: 200 * time.Millisecond})
	p.notice("READY=1")
	p.pings(3)
	if err := call(t, dial(t, p.socket)); err != nil {
		t.Error(err)
	}
	p.pings(3)
	p.signal(syscall.SIGTERM)
	p.ended(0)
	if strings.Contains(p.text(), "event=dm-idle") {
		t.Error("the daemon was about to exit")
	}
}

// A reload changes the idle time.
func TestReloadIdleTimeout(t *testing.T) {
	t.Parallel()
	u := newUnit(t)
	file := filepath.Join(short(t), "c.toml")
	if err := os.WriteFile(file, []byte("daemon.idle_timeout = \"0s\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := u.launch(200*time.Millisecond, "--config="+file)
	p.pings(2)
	p.configure(file, "daemon.idle_timeout = \"1ms\"\n")
	p.ended(0)
	p.logged("event=dm-idle")
}

// No client is refused while the daemon exits and starts again: a socket unit starts it
// when a client connects, it exits as soon as possible, and clients keep or renew their
// connections.
func TestIdleExitRefusesNoClient(t *testing.T) {
	t.Parallel()
	const generations, least = 25, 5 // starts; a slow machine has fewer
	u := newUnit(t)
	stop := make(chan struct{})
	enough := sync.OnceFunc(func() { close(stop) })
	defer enough()
	var calls, starts atomic.Int64
	var clients sync.WaitGroup
	ask := func(fresh bool, seed uint64) {
		r := rand.New(rand.NewPCG(seed, 7))
		conn := dial(t, u.path)
		for {
			// Around the time of the idle exit.
			select {
			case <-stop:
				return
			case <-time.After(time.Duration(r.IntN(6)) * time.Millisecond):
			}
			if fresh {
				conn.Close()
				conn = dial(t, u.path)
			}
			if err := call(t, conn); err != nil {
				t.Errorf("after %d calls and %d starts: %v", calls.Load(), starts.Load(), err)
				enough()
				return
			}
			calls.Add(1)
		}
	}
	for i := range 4 {
		clients.Go(func() { ask(i%2 == 0, uint64(i)) })
	}
	late := time.Now().Add(time.Minute)
	for u.wanted(stop) {
		p := u.launch(0, "--idle-timeout=1ms")
		starts.Add(1)
		select {
		case <-p.Done():
			p.ended(0)
		case <-stop:
			p.notice("READY=1") // before that, a signal kills it
			_ = p.Term()        // it may have exited already
			p.ended(0)
		}
		if n := starts.Load(); n >= generations || n >= least && time.Now().After(late) {
			enough()
		}
	}
	// Clients with a pending call need a last daemon.
	last := u.launch(0, "--idle-timeout=0s")
	clients.Wait()
	last.notice("READY=1")
	last.signal(syscall.SIGTERM)
	last.ended(0)
	t.Logf("%d calls, %d starts", calls.Load(), starts.Load())
	if starts.Load() < least {
		t.Errorf("%d starts: nothing was tested", starts.Load())
	}
}
