package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

var busyBehaviours = []behaviour{
	{"busy: working directory", directories, func(s *env) { busy(s, lab.HoldCWD, "cwd") }},
	{"busy: open file", directories, func(s *env) { busy(s, lab.HoldOpen, "fd") }},
	{"busy: mapped file", directories, func(s *env) { busy(s, lab.HoldMmap, "mmap") }},
	{"busy: mount below ours", directories, busyNested},
	{"busy: device open", rawOnly, busyRaw},
	{"busy: other namespace", func(k *kind) bool { return k.lvm && !k.file }, busyNamespace},
	{"busy: processes of users, reported", xfsOnly, busyReported},
	{"busy: processes of users, terminated", nil, busyTerminated},
	{"busy: a process ignores SIGTERM", xfsOnly, busyDeaf},
	{"busy: processes of users, killed", xfsOnly, busyKilled},
	{"busy: a process of a hook", xfsOnly, busyHook},
}

// busy: the status and the log name the holder. Nothing is killed, and the unmount is
// completed when the holder releases the mount.
func busy(s *env, how, kind string) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(how, m.Path)
	s.Must(err)
	defer h.Release()
	s.Want("one", "unmounted")
	held := h.Path
	if how == lab.HoldCWD {
		held = m.Path
	}
	s.failed("one", "Major", "unable to unmount file system: could not unmount file system "+m.Path, "busy",
		fmt.Sprintf("in use by pid %d (faketools, uid 0", h.PID), fmt.Sprintf("): %s %s", kind, held))
	if shown := s.shows("one", mountstate.Busy); len(shown.Holders) != 1 || shown.Holders[0].PID != h.PID || shown.Failure.Kind != mountstate.FailureBusy {
		s.Errorf("clientmountd mounts shows %+v", shown)
	}
	s.sick(mountstate.CauseBusy, mountstate.ActionWait, "busy for ", fmt.Sprintf("in use by pid %d (faketools", h.PID))
	s.late("one", mountstate.Unmounted, "busy for ", fmt.Sprintf("in use by pid %d (faketools", h.PID))
	f := s.logged("mount is in use", "one")
	want := map[string]any{
		"holder_pid": float64(h.PID), "holder_uid": float64(0), "holder_command": "faketools", "holder_kind": kind,
		"holder_path": held, "mount_path": m.Path, "workflow": "job7",
	}
	for field, v := range want {
		if f[field] != v {
			s.Errorf("the log has %s=%v, want %v", field, f[field], v)
		}
	}
	s.mounted(m)
	s.Must(h.Release())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNested: a mount below ours is reported and not touched.
func busyNested(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(lab.HoldNested, m.Path)
	s.Must(err)
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "unable to unmount file system", "busy", "in use by mount "+filepath.Join(m.Path, "nested")+" below it")
	s.logged("mount is in use", "one")
	s.mounted(m)
	if _, ok, _ := s.MountAt(h.Path); !ok {
		s.Errorf("the mount below was unmounted")
	}
	s.Must(h.Release())
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.unmounted(m)
	s.ends()
}

// busyRaw: the holder of a bound device node is a process that has it open through the
// mount.
func busyRaw(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	f, err := os.Open(m.Path)
	s.Must(err)
	defer f.Close()
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", "busy", fmt.Sprintf("in use by pid %d (", os.Getpid()), "fd "+m.Path)
	s.mounted(m)
	s.Must(f.Close())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNamespace: a process in another mount namespace does not prevent the unmount, but
// keeps the device open. The deactivation fails and names the process until it exits. The
// lab itself also has the device open.
func busyNamespace(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(lab.HoldNamespace, m.Path)
	s.Must(err)
	defer func() { s.Must(h.Release()) }()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "mount/unmount failed: unable to deactivate block device: command: lvchange", "in use",
		"in use by pid ", fmt.Sprintf("pid %d (faketools, uid 0", h.PID), "mount namespace ", "): cwd ")
	f := s.line(fmt.Sprintf("that names process %d", h.PID), func(f map[string]any) bool {
		return f["msg"] == "device is in use" && f["holder_pid"] == float64(h.PID)
	})
	if f["holder_kind"] != "cwd" || f["holder_namespace"] == "" {
		s.Errorf("the log does not show how process %d uses the device: %v", h.PID, f)
	}
	f = s.logged("state of the devices after a failed deactivation", "one")
	if text := fmt.Sprint(f["dlm"]); !strings.Contains(text, "dlm lockspaces") {
		s.Errorf("no diagnosis of locks: %v", f)
	}
	s.unmounted(m)
	s.Must(h.Release())
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.ends()
}

// person is an ordinary user.
const person = 1234

// signalled returns the signals that the daemon has logged for a process.
func (s *env) signalled(pid int) (signals []string) {
	for _, l := range s.d.Log() {
		if l.Fields["event"] == "signalled" && l.Fields["holder_pid"] == float64(pid) {
			signals = append(signals, fmt.Sprint(l.Fields["signal"]))
		}
	}
	return signals
}

// endedBy checks which signal has ended the process.
func (s *env) endedBy(h *lab.Holder, signal string) {
	s.Helper()
	if err := h.Release(); err == nil || !strings.Contains(err.Error(), "signal: "+signal) {
		s.Errorf("process %d: %v, want signal: %s", h.PID, err, signal)
	}
}

// busyReported: by default, processes of users get no signal.
func busyReported(s *env) {
	m := s.ready("--config=" + s.write("mount.retry_max = \"1s\"\nmount.busy_grace = \"0s\""))
	s.MountAndWait("one", m)
	h, err := s.BusyUser(lab.HoldCWD, m.Path, person, false)
	s.Must(err)
	s.Must(s.ClearLog())
	s.Want("one", "unmounted")
	s.failed("one", "Major", fmt.Sprintf("in use by pid %d (faketools, uid %d): cwd %s", h.PID, person, m.Path))
	wait.Until(s.t, "several attempts to unmount", func() bool { return len(s.commands()) >= 6 })
	if got := s.signalled(h.PID); len(got) > 0 {
		s.Errorf("signals %q", got)
	}
	s.mounted(m)
	s.Must(h.Release()) // without a signal
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyTerminated: processes of ordinary users get SIGTERM once, after the grace; those of
// root and of system users do not. The unmount is completed when all have left.
func busyTerminated(s *env) {
	m := s.ready("--config=" + s.write("[mount]\nbusy = \"terminate\"\nbusy_grace = \"1s\"\nbusy_min_uid = 1000\nretry_max = \"1s\""))
	s.MountAndWait("one", m)
	how, kind := lab.HoldCWD, "cwd"
	if s.k.file {
		how, kind = lab.HoldOpen, "fd"
	}
	var holders []*lab.Holder
	for _, uid := range []int{0, 999, person} {
		h, err := s.BusyUser(how, m.Path, uid, false)
		s.Must(err)
		defer h.Release()
		holders = append(holders, h)
	}
	root, system, user := holders[0], holders[1], holders[2]
	since := time.Now()
	s.Want("one", "unmounted")
	f := s.line("about a signal", func(f map[string]any) bool { return f["event"] == "signalled" && f["holder_pid"] == float64(user.PID) })
	if d := time.Since(since); d < time.Second {
		s.Errorf("SIGTERM after %v", d)
	}
	for field, v := range map[string]any{
		"holder_uid": float64(person), "holder_command": "faketools", "holder_kind": kind, "holder_path": m.Path, "signal": "SIGTERM",
		"mount_path": m.Path, "clientmount": "one", "workflow": "job7",
	} {
		if f[field] != v {
			s.Errorf("the log has %s=%v, want %v", field, f[field], v)
		}
	}
	s.endedBy(user, "terminated")
	for h, reason := range map[*lab.Holder]string{root: "it belongs to root", system: "it belongs to the system user 999; ordinary users have IDs from 1000"} {
		s.line("about a process without a signal", func(f map[string]any) bool {
			return f["event"] == "not-signalled" && f["holder_pid"] == float64(h.PID) && f["reason"] == reason
		})
	}
	s.anotherAttempt()
	s.mounted(m)
	for h, want := range map[*lab.Holder][]string{root: nil, system: nil, user: {"SIGTERM"}} {
		if got := s.signalled(h.PID); !slices.Equal(got, want) {
			s.Errorf("signals to process %d: %q, want %q", h.PID, got, want)
		}
	}
	s.Must(root.Release())
	s.Must(system.Release())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// anotherAttempt waits until the daemon has failed to unmount again.
func (s *env) anotherAttempt() {
	s.Helper()
	s.Must(s.ClearLog())
	wait.Until(s.t, "another attempt to unmount", func() bool { return len(s.commands()) > 1 })
}

// busyDeaf: a process that ignores SIGTERM gets it only once.
func busyDeaf(s *env) {
	m := s.ready("--config=" + s.write("[mount]\nbusy = \"terminate\"\nbusy_grace = \"0s\"\nretry_max = \"1s\""))
	s.MountAndWait("one", m)
	deaf, err := s.BusyUser(lab.HoldCWD, m.Path, person, true)
	s.Must(err)
	defer deaf.Release()
	s.Want("one", "unmounted")
	s.line("about a signal", func(f map[string]any) bool { return f["event"] == "signalled" })
	s.anotherAttempt()
	s.mounted(m)
	if got := s.signalled(deaf.PID); !slices.Equal(got, []string{"SIGTERM"}) {
		s.Errorf("signals %q", got)
	}
	s.Must(deaf.Release())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyKilled: a process that ignores SIGTERM gets SIGKILL after the second grace, and the
// unmount is completed at once. The lowest user ID is that of login.defs.
func busyKilled(s *env) {
	m := s.ready("--config=" + s.write("[mount]\nbusy = \"kill\"\nbusy_grace = \"1s\""))
	s.MountAndWait("one", m)
	deaf, err := s.BusyUser(lab.HoldCWD, m.Path, person, true)
	s.Must(err)
	defer deaf.Release()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	at := map[string]time.Time{}
	for _, signal := range []string{"SIGTERM", "SIGKILL"} {
		s.line("about "+signal, func(f map[string]any) bool {
			return f["event"] == "signalled" && f["signal"] == signal && f["holder_pid"] == float64(deaf.PID)
		})
		at[signal] = time.Now()
	}
	if d := at["SIGKILL"].Sub(at["SIGTERM"]); d < 4*time.Second { // 5 s, seen with some delay
		s.Errorf("SIGKILL %v after SIGTERM", d)
	}
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.endedBy(deaf, "killed")
	if got := s.signalled(deaf.PID); !slices.Equal(got, []string{"SIGTERM", "SIGKILL"}) {
		s.Errorf("signals %q", got)
	}
	s.unmounted(m)
	s.ends()
}

// busyHook: a process that a hook has started gets no signal, even though it belongs to an
// ordinary user and its parent has exited.
func busyHook(s *env) {
	fifo := s.Runtime + "-fifo"
	s.Must(unix.Mkfifo(fifo, 0o600))
	input, err := os.OpenFile(fifo, os.O_RDWR, 0)
	s.Must(err)
	defer input.Close()
	start := fmt.Sprintf("%s busy cwd $MOUNT_PATH %d <%s >/dev/null 2>&1 &", filepath.Join(s.Bin, "faketools"), person, fifo)
	m := s.readyWith(fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.k.typ: {"postMount": {start}}}},
		"--config="+s.write("[mount]\nbusy = \"kill\"\nbusy_grace = \"0s\"\nretry_max = \"1s\""))
	s.MountAndWait("one", m)
	s.Want("one", "unmounted")
	f := s.line("about the process of the hook", func(f map[string]any) bool {
		return f["event"] == "not-signalled" && f["reason"] == "this daemon started it"
	})
	if f["holder_uid"] != float64(person) {
		s.Errorf("the log has %v", f)
	}
	s.anotherAttempt()
	s.mounted(m)
	s.Must(input.Close()) // the process exits
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}
