package conformance

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/e2e/faketools/record"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

func nvmeOnly(k *kind) bool { return k.device == "lvm" }

var deviceBehaviours = []behaviour{
	{"namespace after a rescan", nvmeOnly, func(s *env) { lateNamespace(s, 2) }},
	{"namespace after a rescan, old nvme-cli", nvmeOnly, func(s *env) { lateNamespace(s, 1) }},
	{"namespace missing", nvmeOnly, missingNamespace},
	{"no namespaces known", nvmeOnly, unknownNamespaces},
	{"device node late", lvmOnly, lateNode},
	{"volume group late", lvmOnly, lateGroup},
	{"devices renumbered", nvmeOnly, renumbered},
	{"device of a mounted file system lost", xfsOnly, deviceLost},
}

// An nvme is one namespace of a volume, with its current names on the machine.
type nvme struct {
	s    *env
	nqn  string
	nsid int
}

func (s *env) state() record.Dir { return record.Dir(filepath.Join(s.Dir, "state")) }

// controller returns the name of the controller that the fake nvme assigns to the
// subsystem.
func (n nvme) controller() string {
	n.s.Helper()
	state, err := n.s.state().Load()
	n.s.Must(err)
	var seen []string
	for _, have := range state.Namespaces {
		if !slices.Contains(seen, have.NQN) {
			seen = append(seen, have.NQN)
		}
	}
	return fmt.Sprintf("/dev/nvme%d", slices.Index(seen, n.nqn))
}

func (n nvme) node() string { return fmt.Sprintf("%sn%d", n.controller(), n.nsid) }

// plug creates a node in /dev, which belongs to the lab.
func (s *env) plug(path string) {
	s.Helper()
	s.Must(os.WriteFile(path, nil, 0o600))
	s.Cleanup(func() { _ = os.Remove(path) })
}

// nvmeStorage creates storage on a separate namespace with an attached controller.
func (s *env) nvmeStorage(o lab.VolumeOptions) (fixture.MountSpec, nvme) {
	s.Helper()
	if !s.Features.OwnDev {
		s.t.Skip("not run: /dev is that of the machine, so the test must not create nodes in it")
	}
	n := nvme{s, "nqn.2014-08.org.example:" + s.Node, 12}
	o.NQN, o.NSID = n.nqn, n.nsid
	m := s.storage(3, o)
	m.NQN, m.NSID = n.nqn, fmt.Sprint(n.nsid)
	s.plug(n.controller())
	return m, n
}

// lateNamespace: the rabbit attached the namespace after the node had scanned. A rescan
// finds it, the mount continues when the kernel shows it, and no error is reported.
func lateNamespace(s *env, layout int) {
	s.UseProfile(fixture.ProfileSpec{})
	s.Must(s.NVMeLayout(layout))
	m, n := s.nvmeStorage(lab.VolumeOptions{NeedsRescan: true, RescanLate: 300 * time.Millisecond})
	s.run()
	s.Mount("one", m)
	_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool {
		return c.Tool == "nvme" && c.Exit == 0 && strings.Join(c.Argv, " ") == "ns-rescan "+n.controller()
	})
	s.Must(err)
	wait.Pass(s.t, 350*time.Millisecond, "the time that the kernel takes for its scan")
	s.plug(n.node())
	o := s.AwaitStatus("one", func(o lab.Object) bool { return o.Ready("mounted") || o.Severity() != "" })
	if o.Severity() != "" {
		s.Errorf("an error was reported: %s", o.DebugMessage())
		s.Await("one", "mounted")
	}
	s.mounted(m)
	s.Delete("one")
	s.Must(s.NVMeLayout(2))
	s.ends()
}

// missingNamespace: the namespace is not attached, and the status names it. When an
// administrator attaches it, the mount is completed.
func missingNamespace(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m, n := s.nvmeStorage(lab.VolumeOptions{NeedsRescan: true})
	s.with(lab.Spec{Env: []string{"NNF_MAPPER_WAIT_TIMEOUT=1"}})
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: unable to activate block device: ", "namespaces are missing after a rescan", n.nqn+" namespace 12")
	f := s.logged("ClientMount failed", "one")
	if f["hint"] == nil || f["hint"] == "" {
		s.Errorf("no hint: %v", f)
	}
	if shown := s.shows("one", mountstate.Failed); shown.Failure.Kind != mountstate.FailureDevice {
		s.Errorf("clientmountd mounts shows %+v", shown.Failure)
	}
	s.sick(mountstate.CauseDevice, mountstate.ActionWait, "without its device for ")
	s.late("one", mountstate.Mounted, "without its device for ", n.nqn+" namespace 12")
	s.plug(n.node())
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// unknownNamespaces: without a list of namespaces the error is that of LVM, after a
// bounded number of retries.
func unknownNamespaces(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.k.spec(s.Path("m3"), 3)
	config := s.Runtime + "-config.toml"
	s.Must(os.WriteFile(config, []byte("version = 1\n[mount]\ndevice_retries = 3\n"), 0o600))
	s.run("--config=" + config)
	s.Mount("one", m)
	want := "could not find logical volume " + s.Owner + "_0/lv-3"
	if s.k.locks {
		want = "timeout waiting for VG " + s.Owner + "_0"
	}
	s.failed("one", "Major", "unable to activate block device: ", want, "after 3 rescans")
	s.Must(s.ClearLog())
	s.storage(3, lab.VolumeOptions{}) // now it exists
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// lateNode: udev creates the node some time after the activation.
func lateNode(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{NodeLate: 400 * time.Millisecond})
	s.run()
	s.Mount("one", m)
	o := s.AwaitStatus("one", func(o lab.Object) bool { return o.Ready("mounted") || o.Severity() != "" })
	if o.Severity() != "" {
		s.Fatalf("an error was reported: %s", o.DebugMessage())
	}
	s.mounted(m)
	s.called(s.words(s.k.mount, m)...)
	s.Delete("one")
	s.ends()
}

// lateGroup: LVM sees the group some time after the object was created.
func lateGroup(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{Appears: 700 * time.Millisecond})
	s.run()
	s.MountAndWait("one", m)
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// renumbered: after a restart of the rabbit the same storage has other numbers, and the
// old numbers belong to another controller.
func renumbered(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m, n := s.nvmeStorage(lab.VolumeOptions{})
	s.plug(n.node())
	other := s.storage(9, lab.VolumeOptions{NQN: n.nqn + "-other", NSID: 12})
	s.run()
	s.MountAndWait("one", m)
	s.mounted(m)
	s.Unmount("one")
	before := n.node()
	s.Must(s.state().Update(func(state *record.State) error {
		if len(state.Namespaces) < 2 {
			return errors.New("there is only one namespace")
		}
		slices.Reverse(state.Namespaces)
		a, b := state.Volumes[len(state.Volumes)-2], state.Volumes[len(state.Volumes)-1]
		a.Minor, b.Minor = b.Minor, a.Minor
		return nil
	}))
	if n.node() == before {
		s.Fatal("the numbers did not change")
	}
	s.plug(n.controller())
	s.plug(n.node())
	s.Want("one", "mounted")
	s.Await("one", "mounted")
	s.mounted(m)
	other.NQN, other.NSID = n.nqn+"-other", "12"
	s.MountAndWait("two", other)
	s.mounted(other)
	s.Delete("two")
	s.Delete("one")
	s.removeBase()
	s.ends()
}

// deviceLost: the device of a mounted file system disappears. Its directory of sysfs is hidden from
// the commands that report about the node, because no mounted loop device can be removed.
func deviceLost(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	s.fine()
	lost := func(code int, args ...string) string {
		s.Helper()
		cmd, stdout, stderr := s.question(args...)
		cmd.Args = append([]string{"sh", "-c", `mount -t tmpfs none /sys/dev/block && exec "$0" "$@"`, cmd.Path}, cmd.Args[1:]...)
		shell, err := exec.LookPath("sh")
		s.Must(err)
		cmd.Path, cmd.SysProcAttr = shell, &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != code {
			s.Fatalf("clientmountd %s: %v, want exit code %d\n%s%s", strings.Join(args, " "), err, code, stdout, stderr)
		}
		return stdout.String()
	}
	doc, err := mountstate.ParseMounts([]byte(lost(cli.ExitOK, "mounts", "-o", "json")))
	s.Must(err)
	if len(doc.Mounts) != 1 || doc.Mounts[0].State != mountstate.Failed || doc.Mounts[0].Failure.Kind != mountstate.FailureDevice {
		s.Errorf("clientmountd mounts shows %+v", doc.Mounts)
	}
	line := lost(cli.ExitFailed, "health", "--drain-only")
	if !strings.HasSuffix(line, " without its device: the device 7:"+fmt.Sprint(s.volumes[m.Index].Loop)+" of the mounted file system no longer exists\n") {
		s.Errorf("clientmountd health prints %q", line)
	}
	s.fine()
	s.Delete("one")
	s.ends()
}
