package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/stage"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.VMTools...)) }

// attached and detached are how many namespaces the machine has; one for each
// test.
const (
	attached = 6
	detached = 1
)

// shared is the machine of all tests: a boot takes longer than most of them.
var shared *machine.Machine

// node is the machine, with clientmountd installed and running.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	if shared == nil {
		m := machine.VM(t, machine.VMOptions{Attached: attached, Detached: detached})
		m.Install()
		m.Configure()
		m.Do("systemctl enable --now clientmountd")
		shared = m
	}
	return shared.For(t)
}

// A site is a test's part of the machine: a namespace, the volume group on it
// and the storage profile.
type site struct {
	*machine.Machine
	*stage.Stage
	t      *testing.T
	nsid   int
	vg, lv string
}

// newSite takes the namespace; how makes the file system on $lv, which is active
// meanwhile. Options are for the volume group.
func newSite(t *testing.T, nsid int, how string, options ...string) *site {
	t.Helper()
	m := node(t)
	s := &site{Machine: m, Stage: m.Stage, t: t, nsid: nsid}
	s.Stage.Owner = fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", nsid)
	s.Stage.Profile = fmt.Sprintf("vm%d-0", nsid)
	s.vg, s.lv = lab.VolumeNames(s.Owner, "0", 0, true)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.Do("journalctl -b --no-pager -o short-precise -n 150 -u clientmountd; dmesg | tail -20; lvs; findmnt -t xfs,gfs2"))
		}
	})
	// As the rabbit: the group is nobody's to activate by itself.
	m.Do(fmt.Sprintf("set -e; vgcreate -q --yes --setautoactivation n %s %s %s; lvcreate -q --yes -Wn -Zn -n %s -l 100%%VG %s; lv=/dev/%s/%s; %s; lvchange -an %s",
		strings.Join(options, " "), s.vg, s.device(), s.lv, s.vg, s.vg, s.lv, how, s.vg))
	return s
}

// device is the namespace's node: the number of its subsystem changes from boot
// to boot.
func (s *site) device() string {
	s.t.Helper()
	return s.Machine.Await(fmt.Sprintf("namespace %d is there", s.nsid), fmt.Sprintf(
		`for d in /sys/block/nvme*; do [ "$(cat $d/nsid 2>/dev/null)" = %d ] && [ -b /dev/${d##*/} ] && echo /dev/${d##*/} && exit; done; exit 1`, s.nsid))
}

// path is where the site mounts.
func (s *site) path() string { return fmt.Sprintf("/mnt/nnf/%d", s.nsid) }

// mount asks for the mount.
func (s *site) mount(fsType string) {
	s.t.Helper()
	s.Mount(s.name(), lab.MountSpec{
		Path: s.path(), Type: fsType, NQN: "nqn.2019-08.org.qemu:e2e", NSID: fmt.Sprint(s.nsid),
	})
}

func (s *site) name() string { return fmt.Sprintf("site-%d", s.nsid) }

// unmount asks for the end of the mount, and looks whether all of it is gone.
func (s *site) unmount() {
	s.t.Helper()
	s.Want(s.name(), "unmounted")
	s.Stage.Await(s.name(), "unmounted")
	s.Do("! findmnt -n " + s.path())
	if active := strings.TrimSpace(s.Do("lvs --noheadings -o lv_active " + s.vg)); active != "" {
		s.t.Errorf("the logical volume is %s", active)
	}
	s.Delete(s.name())
}

// mounted waits until the object says so, and looks at the machine.
func (s *site) mounted(fsType string) {
	s.t.Helper()
	s.Stage.Await(s.name(), "mounted")
	want := fsType + " " + lab.DevicePath(s.vg, s.lv)
	if got := s.Do("findmnt -n -o FSTYPE,SOURCE " + s.path() + " | tr -s ' '"); got != want {
		s.t.Errorf("mounted is %q, want %q", got, want)
	}
}
