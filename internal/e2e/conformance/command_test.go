package conformance

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var commandBehaviours = []behaviour{
	{"command hangs and ignores TERM", nil, hang},
	{"hanging unmount", nil, hangingUnmount},
	{"grandchild holds the pipe", nil, grandchild},
	{"100 MB of output", nil, flood},
	{"failure text", nil, failureText},
	{"killed command", nil, killedCommand},
	{"success without effect", nil, hollowSuccess},
	{"hook hangs", xfsOnly, hookHangs},
	{"query fails", lvmOnly, queryFails},
	{"messages beside a report", lvmOnly, messagesBesideReport},
	{"lvchange hangs in the kernel", xfsOnly, hangsInTheKernel},
	{"commands run in English, without what systemd meant for us", xfsOnly, environment},
}

// neighbour mounts and unmounts another object of the same node while the
// first is in trouble.
func (s *env) neighbour(index int) {
	s.Helper()
	m := s.storage(index, lab.VolumeOptions{})
	name := fmt.Sprintf("neighbour-%d", index)
	s.MountAndWait(name, m)
	s.mounted(m)
	s.Delete(name)
	s.unmounted(m)
}

// hang: the limit is kept by force, the cause is told, another object does not
// wait, and nothing of the command survives. A process in uninterruptible
// sleep cannot be had here; the tests of package node have one.
func hang(s *env) {
	m := s.ready("--command-timeout=2s")
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, Hang: true}))
	s.Mount("one", m)
	_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool { return c.Tool == "mount" && c.Exit == -1 })
	s.Must(err)
	s.neighbour(8)
	if s.get("one").Ready("mounted") {
		s.Errorf("the neighbour came only after the one that hung")
	}
	s.failed("one", "Major", "unable to mount file system", "command: mount -t", "time limit")
	s.Await("one", "mounted") // the fault is over
	s.mounted(m)
	s.Delete("one")
	s.removeBase()
	s.ends()
}

// removeBase is for tests with neighbours: who made the common parent may not
// be who left last.
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

// grandchild: the command ends well and leaves a process that holds its output
// open, as a daemon started by a hook would.
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

// killSleepers ends the grandchildren, by the list of what should be gone.
func (s *env) killSleepers() {
	s.Helper()
	left, err := s.Leftovers()
	s.Must(err)
	n := 0
	for _, l := range left {
		var pid int
		if _, err := fmt.Sscanf(l, "process %d sleep 1000000", &pid); err == nil {
			s.Must(unix.Kill(pid, unix.SIGKILL))
			// Its end and its reaping take a moment on a busy machine.
			wait.Until(s.t, "the end of the grandchild", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
			n++
		}
	}
	if n != 1 {
		s.Errorf("%d grandchildren among %q", n, left)
	}
}

// flood: output costs neither memory nor a status that no API server takes.
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

// failureText is to the byte what workload managers and administrators read.
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

// killedCommand: mount is killed after its work was done. The next
// attempt finds the mount and does not make another.
func killedCommand(s *env) {
	m := s.ready()
	s.Must(s.Fault("mount", lab.Fault{Match: m.Path, Times: 1, After: true, Suicide: true}))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", "signal: killed")
	s.Await("one", "mounted")
	s.mounted(m)
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Times: 1, After: true, Suicide: true}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", "signal: killed")
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// hollowSuccess: a program that claims success is not believed without a look.
func hollowSuccess(s *env) {
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

// hookHangs: hooks have a limit of their own, which their children share. The
// second time the hook is done at once.
func hookHangs(s *env) {
	done := s.Runtime + "-hook"
	hook := "[ -e " + done + " ] || { touch " + done + "; sleep 77 & wait; }"
	m := s.readyWith(world.ProfileSpec{Hooks: map[string]world.Hooks{s.k.typ: {"preMount": {hook}}}}, "--hook-timeout=1s")
	s.Mount("one", m)
	s.failed("one", "Major", "unable to run file system PreMount commands", "command: "+hook, "time limit")
	s.Await("one", "mounted")
	s.Delete("one")
	s.ends() // the sleep would be left
}

// queryFails: what lvs says on standard error reaches the status; a report that
// is no JSON does not confuse.
func queryFails(s *env) {
	m := s.ready()
	s.Must(s.Fault("lvs", lab.Fault{Exit: 5, Stderr: "  lvmlockd is not running"}))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to activate block device: command: lvs", "lvmlockd is not running", "exit status 5")
	s.Must(s.ClearFaults())
	s.Await("one", "mounted")
	s.Must(s.Fault("lvs", lab.Fault{Report: "  WARNING: broken"}))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to deactivate block device: lvs printed something other than the expected JSON")
	s.Must(s.ClearFaults())
	s.Await("one", "unmounted")
	s.Delete("one")
	s.ends()
}

// messagesBesideReport: what LVM prints beside a report does no harm, and its exit
// status concerns another group. It is logged once.
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
		if l.Fields["msg"] == "an LVM tool printed messages beside its report; the report is used" {
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

// hangsInTheKernel: no signal ends lvchange. However often the activation is tried,
// one process hangs; another object of the same volume group starts none either, and
// says why. What is mounted stays ready. Everything resumes when the kernel answers.
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

// ioctls of linux/fs.h that stop and release all writers of a file system.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

func environment(s *env) {
	m := s.readyWith(world.ProfileSpec{Hooks: map[string]world.Hooks{s.k.typ: {"preMount": {`echo "socket=$NOTIFY_SOCKET lang=$LANG lc=$LC_ALL"`}}}})
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
