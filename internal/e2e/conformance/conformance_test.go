// Package conformance is the proof that the daemon keeps its promises: a table
// of behaviours, each run for every type of file system, with the built
// daemon, a real API server and real mounts. Beside it stand tests that do not
// depend on the type, such as bad input.
//
// It must not know how the daemon does anything: it looks at the API server,
// the mount table, the programs that were called and the log, which is all that
// a site can see.
package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) { os.Exit(world.Main(m)) }

// A kind is one type of file system and of device.
type kind struct {
	name    string
	typ     string // spec.mounts[].type
	device  string // spec.mounts[].device.type
	mounted string // type in the mount table; empty: whatever /dev has
	file    bool   // the target is a file
	lvm     bool   // on a logical volume
	locks   bool   // in a shared volume group
	test    bool   // needs the test build, which knows what stand-ins mount

	// What is called with the shipped profile, in order. V, L: group and volume; D: the device node, or
	// the source of a Lustre mount; P: the mount path.
	mount, unmount []string
	// Lists of hooks in the order in which they run.
	up, down []string
}

var (
	lvmUp      = []string{"preActivate", "postActivate", "preMount", "postMount"}
	lvmDown    = []string{"preUnmount", "postUnmount", "preDeactivate", "postDeactivate"}
	lustreUp   = []string{"preMount", "postMount"}
	lustreDown = []string{"preUnmount", "postUnmount"}
)

var kinds = []*kind{
	{
		name: "xfs", typ: "xfs", device: "lvm", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	}, {
		name: "raw", typ: "none", device: "lvm", file: true, lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t none -o bind D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	}, {
		name: "gfs2", typ: "gfs2", device: "lvm", mounted: "xfs", lvm: true, locks: true, test: true, up: lvmUp, down: lvmDown,
		mount:   []string{"vgs", "vgchange --lock-start V", "lvs", "lvchange --activate ys V/L", "mount -t gfs2 -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L", "vgs", "lvs", "vgchange --lock-stop V"},
	}, {
		name: "lustre", typ: "lustre", device: "lustre", mounted: "tmpfs", test: true, up: lustreUp, down: lustreDown,
		mount:   []string{"mount -t lustre -o nosuid,nodev D P"},
		unmount: []string{"umount P"},
	}, {
		name: "reference", typ: "xfs", device: "reference", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
	},
}

// A behaviour is one promise. fits is nil when every kind must keep it.
type behaviour struct {
	name string
	fits func(*kind) bool
	test func(*env)
}

func lvmOnly(k *kind) bool     { return k.lvm }
func directories(k *kind) bool { return !k.file }
func rawOnly(k *kind) bool     { return k.file }
func xfsOnly(k *kind) bool     { return k.name == "xfs" }

var behaviours = slices.Concat(lifeBehaviours, hookBehaviours, severalBehaviours, goneBehaviours, foreignBehaviours,
	busyBehaviours, commandBehaviours, deviceBehaviours, shutdownBehaviours, managerBehaviours, namespaceBehaviours, orphanBehaviours, targetBehaviours,
	modeBehaviours, serversBehaviours, optionBehaviours, sharedBehaviours, observedBehaviours, recordBehaviours)

// TestConformance runs each behaviour for each kind that it is about.
func TestConformance(t *testing.T) {
	total := 0
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			n := 0
			for _, b := range behaviours {
				if b.fits != nil && !b.fits(k) {
					continue
				}
				t.Run(b.name, func(t *testing.T) { b.test(newEnv(t, k)); n++ })
			}
			fmt.Printf("conformance: %s: %d behaviours kept\n", k.name, n)
			total += n
		})
	}
	fmt.Printf("conformance: %d behaviours, %d kinds, %d tests\n", len(behaviours), len(kinds), total)
}

// spec is the entry for allocation index at path.
func (k *kind) spec(path string, index int) world.MountSpec {
	m := world.MountSpec{Path: path, Type: k.typ, Device: k.device, Index: index}
	if k.typ == "lustre" {
		m.FSName, m.MGS = fsName(index), mgs
	}
	if k.file {
		m.Own, m.UID, m.GID = true, 1234, 2345 // as the rabbit asks for raw devices
	}
	return m
}

const mgs = "10.0.0.1@tcp:10.0.0.2@tcp"

func fsName(index int) string { return fmt.Sprintf("fs%d", index) }

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 40 * time.Second

// env is a node and the objects for tests of one kind.
type env struct {
	*world.World
	reporter
	t       *testing.T
	k       *kind
	d       *lab.Process // the last that was started
	volumes map[int]*lab.Volume
}

// reporter is the part of a test that tests speak to.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

func newEnv(t *testing.T, k *kind) *env {
	s := &env{World: world.New(t), reporter: t, t: t, k: k, volumes: map[int]*lab.Volume{}}
	s.Must(s.ClearLog())
	t.Cleanup(func() {
		if t.Failed() {
			s.cleanUp()
		}
	})
	return s
}

// cleanUp takes away what a failed test left, so that it fails alone.
func (s *env) cleanUp() {
	if s.d != nil {
		s.d.Kill9()
	}
	list, _ := s.Mounts()
	for _, m := range slices.Backward(list) {
		_ = unix.Unmount(m.Target, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
	}
	if err := s.Reboot(); err != nil {
		s.t.Log(err)
	}
}

// run starts the daemon: the one that is released wherever that can work.
func (s *env) run(flags ...string) *lab.Process {
	s.Helper()
	s.with(lab.Spec{Args: flags})
	return s.d
}

// storage makes what allocation index needs and returns the entry for it.
func (s *env) storage(index int, o lab.VolumeOptions) world.MountSpec {
	s.Helper()
	if s.k.lvm {
		o.Raw, o.Shared = s.k.file, s.k.locks
		s.volumes[index] = s.Volume(index, o)
	}
	return s.k.spec(s.Path(fmt.Sprintf("m%d", index)), index)
}

// ready is a test with the shipped profile, one volume and a daemon.
func (s *env) ready(flags ...string) world.MountSpec {
	s.Helper()
	return s.readyWith(world.ProfileSpec{}, flags...)
}

// readyWith is ready with another profile.
func (s *env) readyWith(p world.ProfileSpec, flags ...string) world.MountSpec {
	s.Helper()
	s.UseProfile(p)
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flags...)
	return m
}

// ends stops the daemon the gentle way and looks for what it left.
func (s *env) ends() {
	s.Helper()
	s.stops()
	s.NothingLeft()
	s.noRecords()
}

func (s *env) stops() {
	s.Helper()
	s.Stop(s.d)
}

func (s *env) records() []string {
	list, err := filepath.Glob(filepath.Join(s.Runtime, "mounts", "*"))
	s.Must(err)
	return list
}

func (s *env) noRecords() {
	s.Helper()
	if list := s.records(); len(list) > 0 {
		s.Errorf("records left behind: %s", list)
	}
	if _, err := os.Lstat(s.Base); !os.IsNotExist(err) {
		s.Errorf("%s was made for mounts and is left behind: %v", s.Base, err)
	}
}

// gate makes the next matching call of a program wait, and returns the function
// that lets it continue; the test's end opens it at the latest.
func (s *env) gate(tool string, f lab.Fault) (reached, open func()) {
	s.Helper()
	path, open0 := s.Gate(fmt.Sprintf("%s-%s", s.Node, tool))
	f.Gate = path
	s.Must(s.Fault(tool, f))
	s.Cleanup(func() { _ = open0() })
	reached = func() {
		s.Helper()
		_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool {
			return c.Tool == tool && c.Exit == -1 && strings.Contains(strings.Join(c.Argv, " "), f.Match)
		})
		s.Must(err)
	}
	return reached, func() { s.Helper(); s.Must(open0()) }
}

// writes counts the requests that may change something.
func writes(p *lab.Proxy) int {
	return p.Count(lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate, lab.ClassCreate, lab.ClassDelete, lab.ClassOther)
}

// with runs the daemon with options of its own and waits until it is ready.
func (s *env) with(o lab.Spec) {
	s.Helper()
	if s.k.test {
		o.Program, o.Env = lab.TestBuild, append(o.Env, world.FSTypes)
	}
	s.d = s.StartDaemon(o)
}
