// Package conformance tests the behaviour of the daemon: a table of behaviours, each run
// for every type of file system, with the built daemon, a real API server and real mounts.
// Other tests, such as those of invalid input, do not depend on the type.
//
// The package does not depend on the implementation of the daemon. It checks the API
// server, the mount table, the programs that were called and the log, which is all that a
// site can see.
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

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(fixture.Main(m)) }

// A kind is one type of file system and of device.
type kind struct {
	name    string
	typ     string // spec.mounts[].type
	device  string // spec.mounts[].device.type
	mounted string // type in the mount table; empty: that of /dev
	file    bool   // the target is a file
	lvm     bool   // on a logical volume
	locks   bool   // in a shared volume group
	test    bool   // needs the test build, which accepts what the fake tools mount

	// The calls with the shipped profile, in order. V, L: group and volume; D: the device node, or
	// the source of a Lustre mount; P: the mount path.
	mount, unmount []string
	// The steps in the timeline with the shipped profile, without requests.
	steps []string
	// Hook lists in the order in which they run.
	up, down []string
}

var (
	lvmUp      = []string{"preActivate", "postActivate", "preMount", "postMount"}
	lvmDown    = []string{"preUnmount", "postUnmount", "preDeactivate", "postDeactivate"}
	lustreUp   = []string{"preMount", "postMount"}
	lustreDown = []string{"preUnmount", "postUnmount"}

	lvmSteps = []string{"mount activate", "mount waitDevice", "mount mount", "unmount unmount", "unmount deactivate"}
)

var kinds = []*kind{
	{
		name: "xfs", typ: "xfs", device: "lvm", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
		steps:   lvmSteps,
	}, {
		name: "raw", typ: "none", device: "lvm", file: true, lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t none -o bind D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
		steps:   slices.Insert(slices.Clone(lvmSteps), 3, "mount chown"),
	}, {
		name: "gfs2", typ: "gfs2", device: "lvm", mounted: "xfs", lvm: true, locks: true, test: true, up: lvmUp, down: lvmDown,
		mount:   []string{"vgs", "vgchange --lock-start V", "lvs", "lvchange --activate ys V/L", "mount -t gfs2 -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L", "vgs", "lvs", "vgchange --lock-stop V"},
		steps:   slices.Concat([]string{"mount waitVG", "mount lockStart"}, lvmSteps, []string{"unmount lockStop"}),
	}, {
		name: "lustre", typ: "lustre", device: "lustre", mounted: "tmpfs", test: true, up: lustreUp, down: lustreDown,
		mount:   []string{"mount -t lustre -o nosuid,nodev D P"},
		unmount: []string{"umount P"},
		steps:   []string{"mount mount", "unmount unmount"},
	}, {
		name: "reference", typ: "xfs", device: "reference", mounted: "xfs", lvm: true, up: lvmUp, down: lvmDown,
		mount:   []string{"lvs", "lvchange --activate y V/L", "mount -t xfs -o nosuid,nodev D P"},
		unmount: []string{"umount P", "lvs", "lvchange --activate n V/L"},
		steps:   lvmSteps,
	},
}

// A behaviour is one test. fits selects the kinds; nil means all.
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
	modeBehaviours, serversBehaviours, optionBehaviours, sharedBehaviours, observedBehaviours, recordBehaviours, metricsBehaviours)

// TestConformance runs each behaviour for each kind that it applies to.
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

// spec returns the entry for allocation index at path.
func (k *kind) spec(path string, index int) fixture.MountSpec {
	m := fixture.MountSpec{Path: path, Type: k.typ, Device: k.device, Index: index}
	if k.typ == "lustre" {
		m.FSName, m.MGS = fsName(index), mgs
	}
	if k.file {
		m.Own, m.UID, m.GID = true, 1234, 2345 // as the rabbit requests for raw devices
	}
	return m
}

const mgs = "10.0.0.1@tcp:10.0.0.2@tcp"

func fsName(index int) string { return fmt.Sprintf("fs%d", index) }

// patience bounds operations that take milliseconds, on a busy machine.
const patience = 40 * time.Second

// env is a node and the objects for tests of one kind.
type env struct {
	*fixture.Fixture
	reporter
	t       *testing.T
	k       *kind
	d       *lab.Process // the daemon that was started last
	volumes map[int]*lab.Volume
}

// reporter is the part of testing.T that the tests use.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

func newEnv(t *testing.T, k *kind) *env {
	s := &env{Fixture: fixture.New(t), reporter: t, t: t, k: k, volumes: map[int]*lab.Volume{}}
	s.Must(s.ClearLog())
	t.Cleanup(func() {
		if t.Failed() {
			s.cleanUp()
		}
	})
	return s
}

// cleanUp removes what a failed test has left, so that later tests are not affected.
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

// run starts the daemon: the release build where possible, otherwise the test build.
func (s *env) run(flags ...string) *lab.Process {
	s.Helper()
	s.with(lab.Spec{Args: flags})
	return s.d
}

// storage creates the storage of allocation index and returns its entry.
func (s *env) storage(index int, o lab.VolumeOptions) fixture.MountSpec {
	s.Helper()
	if s.k.lvm {
		o.Raw, o.Shared = s.k.file, s.k.locks
		s.volumes[index] = s.Volume(index, o)
	}
	return s.k.spec(s.Path(fmt.Sprintf("m%d", index)), index)
}

// ready prepares a test with the shipped profile, one volume and a daemon.
func (s *env) ready(flags ...string) fixture.MountSpec {
	s.Helper()
	return s.readyWith(fixture.ProfileSpec{}, flags...)
}

// readyWith is like ready with another profile.
func (s *env) readyWith(p fixture.ProfileSpec, flags ...string) fixture.MountSpec {
	s.Helper()
	s.UseProfile(p)
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flags...)
	return m
}

// ends stops the daemon with SIGTERM and checks that it has left nothing.
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
		s.Errorf("%s was created for mounts and was not removed: %v", s.Base, err)
	}
}

// barrier makes the next matching call of a program wait. reached waits for the call, and
// open lets it continue; the end of the test opens it as well.
func (s *env) barrier(tool string, f lab.Fault) (reached, open func()) {
	s.Helper()
	path, open0 := s.Barrier(fmt.Sprintf("%s-%s", s.Node, tool))
	f.Barrier = path
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

// writes counts the requests that can change objects.
func writes(p *lab.Proxy) int {
	return p.Count(lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate, lab.ClassCreate, lab.ClassDelete, lab.ClassOther)
}

// with runs the daemon with other options and waits until it is ready.
func (s *env) with(o lab.Spec) {
	s.Helper()
	if s.k.test {
		o.Program, o.Env = lab.TestBuild, append(o.Env, fixture.FSTypes)
	}
	s.d = s.StartDaemon(o)
}
