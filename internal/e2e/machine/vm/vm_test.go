// Package vm tests the installed daemons on a virtual machine: logical volumes on NVMe
// namespaces, xfs, gfs2 and raw devices, namespaces that are attached late, and reboots.
package vm

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
)

func TestMain(m *testing.M) { os.Exit(machine.Main(m, machine.VMTools...)) }

// All stages use one machine, in this order, because a boot takes longer than most of them.
// Stages that change the machine permanently are last.
var stages = []struct {
	name string
	run  func(*testing.T)
}{
	{"boot", func(t *testing.T) { node(t) }},
	{"kinds", kinds},
	{"doctor", examined},
	{"failed", failed},
	{"killed", killed},
	{"late", late},
	{"renumbered", renumbered},
	{"gone", gone},
	{"upgrade", upgrade},
	{"shared", shared},
	{"reboot", reboot},
	{"power-cut", powerCut},
	{"clock", wrongClock},
}

func TestMachine(t *testing.T) {
	machine.Need(t)
	for _, s := range stages {
		started := time.Now()
		t.Run(s.name, s.run)
		if took := time.Since(started); took > 10*time.Millisecond { // otherwise, -run does not select it
			t.Logf("stage %s: %.1f s", s.name, took.Seconds())
		}
		if theNode != nil && !theNode.Alive() {
			t.Fatal("the machine no longer answers: the following stages are not run")
		}
	}
}

var theNode *machine.Machine

// node returns the machine, with clientmountd installed and running. The first call boots it.
func node(t *testing.T) *machine.Machine {
	t.Helper()
	if theNode != nil {
		return theNode.For(t)
	}
	m := machine.VM(t, machine.VMOptions{Attached: attached, Detached: detached, Newer: true})
	m.Install()
	started := time.Now()
	m.Configure()
	m.Do("systemctl enable --now clientmountd")
	m.Do("systemctl daemon-reload")
	for _, line := range m.UnitWarnings() {
		t.Error("systemd warns about one of our units: ", line)
	}
	t.Logf("configured and started in %.1f s", time.Since(started).Seconds())
	theNode = m
	return m
}

// tight returns the shipped drop-in for sites without hooks.
func tight(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fixture.Root(t), "systemd/examples/clientmountd.service.d/40-tight.conf"))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// under runs a test with the shipped unit, and then with the restrictions of the drop-in.
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
			t.Fatalf("the drop-in has no effect: DevicePolicy is %q", policy)
		}
		test(t)
	})
}

// storageCommands returns the commands of stuck-mount.md that show the storage of a node.
func storageCommands(t *testing.T) string {
	t.Helper()
	return "set -e\n" + manual.Commands(t, fixture.Root(t), "docs/stuck-mount.md", "internal/e2e/machine/vm TestMachine")[0]
}

// doctorCommand returns the command of faq.md that checks a node.
func doctorCommand(t *testing.T) string {
	t.Helper()
	return manual.Commands(t, fixture.Root(t), "docs/faq.md", "internal/e2e/machine/vm TestMachine")[0]
}

// attached and detached are the numbers of namespaces of the machine.
const (
	attached = 7
	detached = 1
)

// storage is the storage that a rabbit creates: a volume group on namespaces, with a logical
// volume for each mount.
type storage struct {
	fs      string // type of the mounts
	nsids   []int
	group   string   // options of the volume group
	volumes []string // options of the volumes; empty: one volume of the whole group
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

var created = map[string]bool{}

// site is the part of the machine that one test uses: a storage, and its ClientMount and
// storage profile.
type site struct {
	*machine.Machine
	*fixture.Fixture
	storage
	t    *testing.T
	name string
	vg   string
}

// newSite creates the storage if it does not exist.
func newSite(t *testing.T, name string) *site {
	t.Helper()
	m := node(t)
	s := &site{Machine: m, Fixture: m.Fixture, storage: storages[name], t: t, name: name}
	s.Fixture.Owner = fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", s.nsids[0])
	s.Fixture.Profile = "vm-" + name
	s.Fixture.Patience = 3 * time.Minute // every instruction is emulated
	if len(s.volumes) == 0 {
		s.volumes = []string{"-l 100%VG"}
	}
	s.vg, _ = fixture.VolumeNames(s.Owner, "0", 0, true)
	t.Cleanup(func() {
		if t.Failed() {
			out, _, _ := m.Run(m.Context(), "journalctl -b --no-pager -o short-precise -n 100 -u clientmountd; dmesg | tail -20; lvs --nolock; dmsetup ls; findmnt -t xfs,gfs2; ls -l /run/clientmountd/mounts")
			t.Log(out)
			// If possible, the following stages start with a clean machine.
			_ = s.Cluster.Delete(m.Context(), "ClientMount", s.Node, name)
		}
	})
	if !created[name] {
		s.create()
		created[name] = true
	}
	return s
}

// create creates the storage as the rabbit does. Hosts do not activate the group automatically.
func (s *site) create() {
	s.t.Helper()
	var b strings.Builder
	var devices []string
	for _, n := range s.nsids {
		devices = append(devices, s.device(n))
	}
	config := "" // the lock manager may not run, and only shared groups need it
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

// device returns the device of a namespace. The number in its name is unrelated to that of the
// namespace.
func (s *site) device(nsid int) string {
	s.t.Helper()
	return s.Machine.Await(fmt.Sprintf("namespace %d is there", nsid), fmt.Sprintf(
		`for d in /sys/block/nvme*; do [ "$(cat $d/nsid 2>/dev/null)" = %d ] && [ -b /dev/${d##*/} ] && echo /dev/${d##*/} && exit; done; exit 1`, nsid))
}

// mapped returns the device of a volume.
func (s *site) mapped(index int) string {
	_, lv := fixture.VolumeNames(s.Owner, "0", index, true)
	return lab.DevicePath(s.vg, lv)
}

// path returns the mount path of a volume.
func (s *site) path(index int) string { return fmt.Sprintf("/mnt/nnf/%s-%d", s.name, index) }

// requestMounts creates the ClientMount, with hooks in the storage profile.
func (s *site) requestMounts(hooks fixture.Hooks) {
	s.t.Helper()
	profile := fixture.Profile(s.Profile, fixture.ProfileSpec{Hooks: map[string]fixture.Hooks{s.fs: hooks}})
	if s.name == "gfs2" {
		// One node without locks: only activate the volume, without starting a lockspace.
		commands := profile.At("data", "gfs2Storage", "blockDeviceCommands", "computeCommands").(map[string]any)
		delete(commands, "vgChange")
		commands["lvChange"].(map[string]any)["activate"] = "--activate y $VG_NAME/$LV_NAME"
	}
	s.Apply(profile)
	var mounts []fixture.MountSpec
	for i := range s.volumes {
		mounts = append(mounts, fixture.MountSpec{
			Path: s.path(i), Type: s.fs, Index: i, NQN: nqn, NSID: fmt.Sprint(s.nsids[0]), Own: true, UID: 1001, GID: 1001,
		})
	}
	s.Mount(s.name, mounts...)
}

// mounted waits until the status is mounted, and checks on the machine that the volumes are
// mounted and that their owner can write.
func (s *site) mounted() {
	s.t.Helper()
	s.Fixture.Await(s.name, "mounted")
	for i := range s.volumes {
		if s.fs == "none" {
			s.Do(fmt.Sprintf(`p=%s; [ "$(stat -c '%%t:%%T %%U' $p)" = "$(stat -L -c '%%t:%%T' %s) alice" ] && head -c 1M /dev/urandom | runuser -u alice -- dd of=$p bs=1M iflag=fullblock oflag=direct status=none`, s.path(i), s.mapped(i)))
			continue
		}
		s.isMounted(i)
		s.Do(fmt.Sprintf("runuser -u alice -- sh -c 'echo %s-%d >%s/name'; sync -f %s", s.name, i, s.path(i), s.path(i)))
	}
}

// isMounted checks on the machine that a volume is mounted.
func (s *site) isMounted(i int) {
	s.t.Helper()
	if got, want := s.Do("findmnt -n -o FSTYPE,SOURCE "+s.path(i)+" | tr -s ' '"), s.fs+" "+s.mapped(i); got != want {
		s.t.Errorf("mounted at %s is %q, want %q", s.path(i), got, want)
	}
}

// holds checks that the files of mounted still exist.
func (s *site) holds() {
	s.t.Helper()
	for i := range s.volumes {
		s.Do(fmt.Sprintf("grep -qx %s-%d %s/name", s.name, i, s.path(i)))
	}
}

// unmounted waits for the unmount after release, checks that no mount or device is left, and
// deletes the object.
func (s *site) unmounted() {
	s.t.Helper()
	s.Fixture.Await(s.name, "unmounted")
	s.nothingLeft()
	s.remove()
}

func (s *site) release() {
	s.t.Helper()
	s.Want(s.name, "unmounted")
}

// remove deletes the object and waits until the daemon has removed its finalizer.
func (s *site) remove() {
	s.t.Helper()
	ctx := s.Machine.Context()
	s.Must(s.Cluster.Delete(ctx, "ClientMount", s.Node, s.name))
	if err := s.Cluster.WaitGone(ctx, "ClientMount", s.Node, s.name); err != nil {
		s.t.Fatalf("%s is not gone: %v", s.name, err)
	}
}

// nothingLeft checks that there is no mount and no device, including those of parts of a volume.
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

// noTargets checks that the mount points are removed, too.
func (s *site) noTargets() {
	s.t.Helper()
	for i := range s.volumes {
		s.Do("[ ! -e " + s.path(i) + " ]")
	}
}

// journal returns the messages of clientmountd about the site in this boot, one per line.
func (s *site) journal(args string) string {
	s.t.Helper()
	return s.Do("journalctl --sync; journalctl -b -q --no-pager -o cat -u clientmountd CLIENTMOUNT=" + s.name + " " + args)
}
