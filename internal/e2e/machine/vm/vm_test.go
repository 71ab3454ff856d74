// Package vm tests the installed daemons on a virtual machine: logical volumes
// on NVMe namespaces, xfs, gfs2 and raw devices, namespaces that come late, and
// what a reboot leaves.
package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.VMTools...)) }

// One machine serves all stages, in this order: a boot takes longer than most of
// them. What changes the machine for good comes last.
var stages = []struct {
	name string
	run  func(*testing.T)
}{
	{"boot", func(t *testing.T) { node(t) }},
	{"kinds", kinds},
	{"failed", failed},
	{"killed", killed},
	{"late", late},
	{"renumbered", renumbered},
	{"gone", gone},
	{"upgrade", upgrade},
	{"shared", shared},
	{"reboot", reboot},
	{"power-cut", powerCut},
}

func TestMachine(t *testing.T) {
	machine.Need(t)
	for _, s := range stages {
		began := time.Now()
		t.Run(s.name, s.run)
		if took := time.Since(began); took > 10*time.Millisecond { // else -run has not asked for it
			t.Logf("stage %s: %.1f s", s.name, took.Seconds())
		}
		if theNode != nil && !theNode.Alive() {
			t.Fatal("the machine does not answer any more: the stages behind this one are not run")
		}
	}
}

var theNode *machine.Machine

// node is the machine, with clientmountd installed and running. It boots when
// it is needed first.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	if theNode != nil {
		return theNode.For(t)
	}
	m := machine.VM(t, machine.VMOptions{Attached: attached, Detached: detached, Newer: true})
	m.Install()
	began := time.Now()
	m.Configure()
	m.Do("systemctl enable --now clientmountd")
	m.Do("systemctl daemon-reload")
	for _, line := range m.UnitWarnings() {
		t.Error("systemd warns about one of our units: ", line)
	}
	t.Logf("configured and started in %.1f s", time.Since(began).Seconds())
	theNode = m
	return m
}

// tight is the drop-in for sites without hooks, as it is shipped.
func tight(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(world.Root(t), "systemd/examples/clientmountd.service.d/40-tight.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// under runs a test under the unit as it is shipped, and then as narrow as the
// drop-in makes it.
func under(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	t.Run("shipped", test)
	t.Run("tight", func(t *testing.T) {
		const dropIn = "/etc/systemd/system/clientmountd.service.d/40-tight.conf"
		m := node(t)
		m.Put(dropIn, 0o644, tight(t))
		m.Do("systemctl daemon-reload && systemctl restart clientmountd")
		defer m.Do("rm " + dropIn + " && systemctl daemon-reload && systemctl restart clientmountd")
		if policy := m.Property("clientmountd", "DevicePolicy"); policy != "closed" {
			t.Fatalf("the drop-in is not in force: DevicePolicy is %q", policy)
		}
		test(t)
	})
}

// attached and detached are how many namespaces the machine has.
const (
	attached = 7
	detached = 1
)

// storage is what a rabbit has made: a volume group on namespaces, with a
// logical volume for each of its mounts.
type storage struct {
	fs      string // type of the mounts
	nsids   []int
	group   string   // options of the volume group
	volumes []string // options of the volumes; one that takes all unless given
	mkfs    string
}

const (
	mkfsXFS = "mkfs.xfs -q"
	nqn     = "nqn.2019-08.org.qemu:e2e"
)

var storages = map[string]storage{
	"xfs":     {fs: "xfs", nsids: []int{1}, mkfs: mkfsXFS},
	"gfs2":    {fs: "gfs2", nsids: []int{2}, mkfs: "mkfs.gfs2 -q -O -p lock_nolock -j 1 -J 8"},
	"raw":     {fs: "none", nsids: []int{3}, mkfs: "true"},
	"striped": {fs: "xfs", nsids: []int{4, 5}, volumes: []string{"--type striped --stripes 2 -l 40%VG", "--type raid0 --stripes 2 -l 40%VG"}, mkfs: mkfsXFS},
	"shared":  {fs: "gfs2", nsids: []int{6}, group: "--shared", mkfs: "mkfs.gfs2 -q -O -p lock_dlm -t nnf:e2e -j 1 -J 8"},
	"empty":   {fs: "xfs", nsids: []int{7}, mkfs: "true"},
	"late":    {fs: "xfs", nsids: []int{attached + 1}, mkfs: mkfsXFS},
}

var made = map[string]bool{}

// A site is a test's part of the machine: a storage, and the ClientMount and
// storage profile for it.
type site struct {
	*machine.Machine
	*world.World
	storage
	t    *testing.T
	name string
	vg   string
}

// newSite makes the storage unless it is there already.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	m := node(t)
	s := &site{Machine: m, World: m.World, storage: storages[name], t: t, name: name}
	s.World.Owner = fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", s.nsids[0])
	s.World.Profile = "vm-" + name
	s.World.Patience = 3 * time.Minute // every instruction is emulated
	if len(s.volumes) == 0 {
		s.volumes = []string{"-l 100%VG"}
	}
	s.vg, _ = world.VolumeNames(s.Owner, "0", 0, true)
	t.Cleanup(func() {
		if t.Failed() {
			out, _, _ := m.Run(m.Context(), "journalctl -b --no-pager -o short-precise -n 100 -u clientmountd; dmesg | tail -20; lvs --nolock; dmsetup ls; findmnt -t xfs,gfs2; ls -l /run/clientmountd/mounts")
			t.Log(out)
			// The stages behind this one begin with a clean machine when that is possible.
			_ = s.Cluster.Delete(m.Context(), "ClientMount", s.Node, name)
		}
	})
	if !made[name] {
		s.make()
		made[name] = true
	}
	return s
}

// make does what the rabbit does. No host activates the group by itself.
func (s *site) make() {
	s.t.Helper()
	var b strings.Builder
	var devices []string
	for _, n := range s.nsids {
		devices = append(devices, s.device(n))
	}
	config := "" // the lock manager may be away, and only shared groups need it
	if s.group == "" {
		config = "--config global/use_lvmlockd=0"
	}
	fmt.Fprintf(&b, "set -e; vgcreate -q --yes --setautoactivation n %s %s %s %s\n", config, s.group, s.vg, strings.Join(devices, " "))
	for i, options := range s.volumes {
		fmt.Fprintf(&b, "lvcreate -q --yes -Wn -Zn -n lv-%d %s %s %s; %s %s\n", i, config, options, s.vg, s.mkfs, s.mapped(i))
	}
	fmt.Fprintf(&b, "vgchange -an %s %s\n", config, s.vg)
	s.Do(b.String())
}

// device is the node of a namespace, whose number has nothing to do with the
// namespace's.
func (s *site) device(nsid int) string {
	s.t.Helper()
	return s.Machine.Await(fmt.Sprintf("namespace %d is there", nsid), fmt.Sprintf(
		`for d in /sys/block/nvme*; do [ "$(cat $d/nsid 2>/dev/null)" = %d ] && [ -b /dev/${d##*/} ] && echo /dev/${d##*/} && exit; done; exit 1`, nsid))
}

// mapped is the device of a volume.
func (s *site) mapped(index int) string {
	_, lv := world.VolumeNames(s.Owner, "0", index, true)
	return lab.DevicePath(s.vg, lv)
}

// path is where the site mounts the volume.
func (s *site) path(index int) string { return fmt.Sprintf("/mnt/nnf/%s-%d", s.name, index) }

// ask asks for the mounts, with hooks in the storage profile.
func (s *site) ask(hooks world.Hooks) {
	s.t.Helper()
	profile := world.Profile(s.Profile, world.ProfileSpec{Hooks: map[string]world.Hooks{s.fs: hooks}})
	if s.name == "gfs2" {
		// One node without locks: no lockspace is started, the volume is activated alone.
		commands := profile.At("data", "gfs2Storage", "blockDeviceCommands", "computeCommands").(map[string]any)
		delete(commands, "vgChange")
		commands["lvChange"].(map[string]any)["activate"] = "--activate y $VG_NAME/$LV_NAME"
	}
	s.Apply(profile)
	var mounts []world.MountSpec
	for i := range s.volumes {
		mounts = append(mounts, world.MountSpec{
			Path: s.path(i), Type: s.fs, Index: i, NQN: nqn, NSID: fmt.Sprint(s.nsids[0]), Own: true, UID: 1001, GID: 1001,
		})
	}
	s.Mount(s.name, mounts...)
}

// mounted waits until the object says so, and looks at the machine: whose the
// mount is, and that its owner can write.
func (s *site) mounted() {
	s.t.Helper()
	s.World.Await(s.name, "mounted")
	for i := range s.volumes {
		if s.fs == "none" {
			s.Do(fmt.Sprintf(`p=%s; [ "$(stat -c '%%t:%%T %%U' $p)" = "$(stat -L -c '%%t:%%T' %s) alice" ] && head -c 1M /dev/urandom | runuser -u alice -- dd of=$p bs=1M iflag=fullblock oflag=direct status=none`, s.path(i), s.mapped(i)))
			continue
		}
		s.isMounted(i)
		s.Do(fmt.Sprintf("runuser -u alice -- sh -c 'echo %s-%d >%s/name'; sync -f %s", s.name, i, s.path(i), s.path(i)))
	}
}

// isMounted looks at the machine alone.
func (s *site) isMounted(i int) {
	s.t.Helper()
	if got, want := s.Do("findmnt -n -o FSTYPE,SOURCE "+s.path(i)+" | tr -s ' '"), s.fs+" "+s.mapped(i); got != want {
		s.t.Errorf("mounted at %s is %q, want %q", s.path(i), got, want)
	}
}

// holds looks for what mounted has written before.
func (s *site) holds() {
	s.t.Helper()
	for i := range s.volumes {
		s.Do(fmt.Sprintf("grep -qx %s-%d %s/name", s.name, i, s.path(i)))
	}
}

// unmounted waits for the end of the mounts that release has asked for, looks
// whether all of it is gone, and deletes the object.
func (s *site) unmounted() {
	s.t.Helper()
	s.World.Await(s.name, "unmounted")
	s.nothingLeft()
	s.remove()
}

func (s *site) release() {
	s.t.Helper()
	s.Want(s.name, "unmounted")
}

// remove deletes the object and waits until the daemon has let it go.
func (s *site) remove() {
	s.t.Helper()
	ctx := s.Machine.Context()
	s.Must(s.Cluster.Delete(ctx, "ClientMount", s.Node, s.name))
	if err := s.Cluster.WaitGone(ctx, "ClientMount", s.Node, s.name); err != nil {
		s.t.Fatalf("%s is not gone: %v", s.name, err)
	}
}

// nothingLeft: no mount, no device, not even of parts of a volume.
func (s *site) nothingLeft() {
	s.t.Helper()
	for i := range s.volumes {
		s.Do("! findmnt -n " + s.path(i))
	}
	prefix := strings.TrimSuffix(strings.TrimPrefix(s.mapped(0), "/dev/mapper/"), "0")
	if left := s.Do("dmsetup ls | grep '^" + prefix + "' || :"); left != "" {
		s.t.Errorf("devices are left: %s", left)
	}
}

// noTargets: the directories and files to mount over are gone as well.
func (s *site) noTargets() {
	s.t.Helper()
	for i := range s.volumes {
		s.Do("[ ! -e " + s.path(i) + " ]")
	}
}

// journal is what clientmountd has logged about the site in this boot, one
// message a line.
func (s *site) journal(args string) string {
	s.t.Helper()
	return s.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -u clientmountd CLIENTMOUNT=" + s.name + " " + args)
}
