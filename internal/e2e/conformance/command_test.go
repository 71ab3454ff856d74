package conformance

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

var commandBehaviours = []behaviour{
	{"command hangs and ignores TERM", nil, hang},
	{"hanging unmount", nil, hangingUnmount},
	{"grandchild holds the pipe", nil, grandchild},
	{"100 MB of output", nil, flood},
	{"failure text", nil, failureText},
	{"refused", xfsOnly, refusedObject},
	{"killed command", nil, killedCommand},
	{"success without effect", nil, falseSuccess},
	{"hook hangs", xfsOnly, hookHangs},
	{"query fails", lvmOnly, queryFails},
	{"messages in addition to a report", lvmOnly, messagesBesideReport},
	{"lvchange hangs in the kernel", xfsOnly, hangsInTheKernel},
	{"commands run in English, without the variables of systemd", xfsOnly, environment},
}

// otherObject mounts and unmounts another object of the same node while the first one
// fails.
func (s *env) otherObject(index int) {
	s.Helper()
	m := s.storage(index, lab.VolumeOptions{})
	name := fmt.Sprintf("other-%d", index)
	s.MountAndWait(name, m)
	s.mounted(m)
	s.Delete(name)
	s.unmounted(m)
}

// hang: the command is killed at its time limit, the cause is reported, another object
// does not wait, and no process of the command survives. The tests of package node cover a
// process in uninterruptible sleep.
func hang(s *env) {
	m := s.ready("--command-timeout=2s")
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Mount("one", m)
	_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool { return c.Tool == "mount" && c.Exit == -1 })
	s.Must(err)
	s.otherObject(8)
	if s.get("one").Ready("mounted") {
		s.Errorf("the other object was mounted only after the hanging one")
	}
	s.failed("one", "Major", "unable to mount file system", "command: mount -t", "time limit")
	s.Await("one", "mounted") // the fault has ended
	s.mounted(m)
	s.Delete("one")
	s.removeBase()
	s.ends()
}

// removeBase removes the common parent of several objects, because the object that created
// it may not be the last one that was unmounted.
func (s *env) removeBase() { _ = os.Remove(s.Base) }

func hangingUnmount(s *env) {
	m := s.ready("--command-timeout=2s")
	s.MountAndWait("one", m)
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "unable to unmount file system", "command: umount "+m.Path, "time limit")
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.unmounted(m)
	s.ends()
}

// grandchild: the command succeeds and leaves a process that keeps its output open, like a
// daemon that a hook has started.
func grandchild(s *env) {
	m := s.ready("--command-timeout=2s")
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Grandchild: true}))
	s.Mount("one", m)
	o := s.Await("one", "mounted")
	if o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(m)
	s.killSleepers()
	s.Delete("one")
	s.ends()
}

// killSleepers kills the grandchildren, using the list of leftovers.
func (s *env) killSleepers() {
	s.Helper()
	left, err := s.Leftovers()
	s.Must(err)
	n := 0
	for _, l := range left {
		var pid int
		if _, err := fmt.Sscanf(l, "process %d sleep 1000000", &pid); err == nil {
			s.Must(unix.Kill(pid, unix.SIGKILL))
			// Until it is reaped takes a moment on a busy machine.
			wait.Until(s.t, "the exit of the grandchild", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
			n++
		}
	}
	if n != 1 {
		s.Errorf("%d grandchildren among %q", n, left)
	}
}

// flood: a large output does not use much memory, and the status stays small enough for
// the API server.
func flood(s *env) {
	m := s.ready()
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, FloodBytes: 100 << 20, Stderr: "at last", Exit: 1}))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", "command: mount -t", "stderr: at last", "shortened")
	u, err := s.d.Usage()
	if err != nil || u.Anonymous > 24<<20 {
		s.Errorf("%d bytes of memory, %v", u.Anonymous, err)
	}
	for _, l := range s.d.Log() {
		if len(l.Text) > 64<<10 {
			s.Errorf("a log line of %d bytes", len(l.Text))
		}
	}
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends()
}

// failureText checks the exact text for workload managers and administrators.
func failureText(s *env) {
	m := s.ready()
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Exit: 32, Stderr: "mount: no good"}))
	s.Mount("one", m)
	line := s.words(s.k.mount[len(s.k.mount)-1:], m)[0]
	o := s.failed("one", "Major")
	want := "mount/unmount failed: unable to mount file system: could not mount file system " + m.Path +
		": command: " + line + " - stderr: mount: no good\n - stdout:  - error: exit status 32"
	if o.DebugMessage() != want || o.String("status", "error", "type") != "Internal" {
		s.Errorf("debugMessage\n\t%q\nwant\n\t%q", o.DebugMessage(), want)
	}
	if shown := s.shows("one", mountstate.Failed); shown.Failure.Kind != mountstate.FailureOther || shown.Failure.Step != "mount" || !strings.Contains(shown.Failure.Text, "mount: no good") {
		s.Errorf("clientmountd mounts shows %+v", shown)
	}
	s.sick(mountstate.CauseFailed, mountstate.ActionWait, "failing for ", "could not mount file system")
	s.late("one", mountstate.Mounted, "failing for ", "mount: no good")
	f := s.logged("ClientMount failed", "one")
	if f["error"] != want && f["error"] != strings.TrimSpace(want) || f["hint"] == nil || f["severity"] != "Major" || f["workflow"] != "job7" {
		s.Errorf("log line: %v", f)
	}
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	if now := s.get("one"); now.At("status", "error") != nil {
		s.Errorf("status %v", now["status"])
	}
	s.Delete("one")
	s.ends()
}

// refusedObject: waiting for a ClientMount that is refused ends at once. The node is fine.
func refusedObject(s *env) {
	m := s.ready()
	m.Path = "/opt/x"
	s.Mount("one", m)
	s.failed("one", "Fatal", "mount.roots")
	if shown := s.shows("one", mountstate.Failed); shown.Failure.Kind != mountstate.FailureRefused || shown.Type != s.k.typ {
		s.Errorf("clientmountd mounts shows %+v", shown)
	}
	reason := s.asked(cli.ExitFailed, "wait", "--workflow=job7", "--for=mounted", "--timeout="+patience.String())
	if !strings.Contains(reason, "mount of /opt/x refused for ") || !strings.Contains(reason, "mount.roots") {
		s.Errorf("clientmountd wait prints %q", reason)
	}
	s.fine()
	health, err := mountstate.ParseHealth([]byte(s.asked(cli.ExitOK, "health", "-o", "json")))
	s.Must(err)
	if len(health.Problems) != 1 || health.Problems[0].Cause != mountstate.CauseRefused {
		s.Errorf("clientmountd health shows %+v", health)
	}
	s.Delete("one")
	s.asked(cli.ExitOK, "wait", "--workflow=job7", "--for=unmounted", "--timeout=0s")
	s.ends()
}

// killedCommand: mount is killed after it has mounted. The next attempt finds the mount
// and does not mount again.
func killedCommand(s *env) {
	m := s.ready()
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, After: true, KillSelf: true}))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", "signal: killed")
	s.Await("one", "mounted")
	s.mounted(m)
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Times: 1, After: true, KillSelf: true}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", "signal: killed")
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// falseSuccess: if a program reports success, the daemon checks the mount table.
func falseSuccess(s *env) {
	m := s.ready()
	s.Must(os.Rename(s.Bin+"/mount", s.Bin+"/mount.real"))
	restore := sync.OnceFunc(func() { s.Must(os.Rename(s.Bin+"/mount.real", s.Bin+"/mount")) })
	s.Cleanup(restore)
	s.Must(executable.Write(s.Bin+"/mount", []byte("#!/bin/sh\nexit 0\n")))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", "reported success but nothing is mounted")
	restore()
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// hookHangs: hooks have a separate time limit, which also applies to their children. The
// second run of the hook succeeds immediately.
func hookHangs(s *env) {
	done := s.Runtime + "-hook"
	hook := "[ -e " + done + " ] || { touch " + done + "; sleep 77 & wait; }"
	m := s.readyWith(fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.k.typ: {"preMount": {hook}}}}, "--hook-timeout=1s")
	s.Mount("one", m)
	s.failed("one", "Major", "unable to run file system PreMount commands", "command: "+hook, "time limit")
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends() // it fails if the sleep still runs
}

// queryFails: the standard error of lvs is in the status, and so is the error for a report
// that is not JSON.
func queryFails(s *env) {
	m := s.ready()
	s.Must(s.Fault("lvs", lab.Fault{Exit: 5, Stderr: "  lvmlockd is not running"}))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to activate block device: command: lvs", "lvmlockd is not running", "exit status 5")
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	s.Must(s.Fault("lvs", lab.Fault{Report: "  WARNING: broken"}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to deactivate block device: lvs did not print the expected JSON")
	s.Must(s.ClearFaults())
	s.Await("one", "unmounted")
	s.Delete("one")
	s.ends()
}

// messagesBesideReport: messages of LVM in addition to a report, and an exit status caused
// by another group, are no failure. They are logged once.
func messagesBesideReport(s *env) {
	m := s.ready()
	for _, tool := range []string{"lvs", "vgs"} {
		s.Must(s.Fault(tool, lab.Fault{After: true, FloodBytes: 4096, Stderr: "  Cannot process volume group other", Exit: 5}))
	}
	s.MountAndWait("one", m)
	s.mounted(m)
	s.Unmount("one")
	s.unmounted(m)
	records := map[string]int{}
	for _, l := range s.d.Log() {
		if l.Fields["msg"] == "an LVM tool printed messages in addition to its report; using the report" {
			tool, _, _ := strings.Cut(fmt.Sprint(l.Fields["command"]), " ")
			records[tool]++
			if l.Fields["error"] != "exit status 5" || l.Fields["level"] != "WARN" {
				s.Errorf("log line: %v", l.Fields)
			}
		}
	}
	if records["lvs"] != 1 || records["vgs"] > 1 {
		s.Errorf("records by tool: %v", records)
	}
	s.Must(s.ClearFaults())
	s.Delete("one")
	s.ends()
}

// hangsInTheKernel: no signal can kill lvchange. However often the activation is retried,
// only one process hangs. Another object of the same volume group starts none and reports
// the reason. Mounted file systems stay ready. The mounts continue when the kernel
// responds.
func hangsInTheKernel(s *env) {
	m := s.ready("--command-timeout=1s", "--log-level=debug")
	ice, other := s.storage(7, lab.VolumeOptions{}), s.storage(8, lab.VolumeOptions{})
	s.MountAndWait("ice", ice)
	dir, err := os.Open(ice.Path)
	s.Must(err)
	thaw := sync.OnceFunc(func() { _ = unix.IoctlSetInt(int(dir.Fd()), fiThaw, 0); _ = dir.Close() })
	s.Must(unix.IoctlSetInt(int(dir.Fd()), fiFreeze, 0))
	s.Cleanup(thaw)
	s.Must(s.Fault("lvchange", lab.Fault{Touch: ice.Path + "/x"}))
	calls := func() (n int) {
		s.Helper()
		list, err := s.Log()
		s.Must(err)
		for _, c := range list {
			if c.Tool == "lvchange" && c.Exit == -1 {
				n++
			}
		}
		return n
	}
	s.Mount("one", m)
	s.failed("one", "Major", "unable to activate block device", "still running after SIGKILL as pid ")
	refused := func(name string) lab.Object {
		s.Helper()
		return s.AwaitStatus(name, func(o lab.Object) bool {
			return strings.Contains(o.DebugMessage(), "unable to activate block device: an earlier command still hangs: pid ")
		})
	}
	first := refused("one")
	s.Mount("two", other)
	refused("two")
	for _, name := range []string{"one", "two"} {
		refusals := map[any]bool{}
		s.line("about several retries of "+name, func(f map[string]any) bool {
			if text, _ := f["error"].(string); f["msg"] == "step failed" && f["clientmount"] == name && strings.Contains(text, "still hangs") {
				refusals[f["time"]] = true
			}
			return len(refusals) >= 4
		})
	}
	if n := calls(); n != 1 {
		s.Errorf("%d calls of lvchange hang", n)
	}
	shown := s.shows("one", mountstate.Stuck)
	if len(shown.Commands) != 1 || !shown.Commands[0].Kernel || !strings.Contains(shown.Failure.Text, fmt.Sprintf("pid %d,", shown.Commands[0].PID)) {
		s.Errorf("clientmountd mounts shows %+v with %+v", shown, shown.Failure)
	}
	s.shows("ice", mountstate.Mounted)
	hangs := fmt.Sprintf(": lvchange (pid %d) waits in the kernel", shown.Commands[0].PID)
	s.sick(mountstate.CauseStuck, mountstate.ActionDrain, "stuck for ", hangs)
	s.late("one", mountstate.Mounted, "stuck for ", hangs)
	if now := s.get("one"); now.DebugMessage() != first.DebugMessage() {
		s.Errorf("the status changes with each retry:\n%s\n%s", first.DebugMessage(), now.DebugMessage())
	}
	if !s.get("ice").Ready("mounted") {
		s.Errorf("a mounted file system is not ready because another hangs: %v", s.get("ice")["status"])
	}
	s.Must(s.ClearFaults())
	thaw()
	s.Await("one", "mounted")
	s.Await("two", "mounted")
	s.mounted(m)
	for _, name := range []string{"one", "two", "ice"} {
		s.Delete(name)
	}
	s.removeBase()
	s.ends()
}

// ioctls of linux/fs.h that freeze and thaw a file system.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func environment(s *env) {
	m := s.readyWith(fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.k.typ: {"preMount": {`echo "socket=$NOTIFY_SOCKET lang=$LANG lc=$LC_ALL"`}}}})
	s.MountAndWait("one", m)
	if f := s.logged("hook output", "one"); f["output"] != "socket= lang=C.UTF-8 lc=" {
		s.Errorf("hook: %v", f["output"])
	}
	calls, err := s.Log()
	s.Must(err)
	for _, c := range calls {
		if c.Env["LC_ALL"] != "C" {
			s.Errorf("%s runs with LC_ALL=%q", c.Tool, c.Env["LC_ALL"])
		}
	}
	s.Delete("one")
	s.ends()
}
