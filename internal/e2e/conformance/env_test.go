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

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 40 * time.Second

// scene is a stage for one kind.
type scene struct {
	*world.World
	reporter
	t       *testing.T
	k       *kind
	d       *lab.Process // the last that was started
	volumes map[int]*lab.Volume
}

// reporter is the part of a test that scenes speak to.
type reporter interface {
	Helper()
	Errorf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

func newScene(t *testing.T, k *kind) *scene {
	s := &scene{World: world.New(t), reporter: t, t: t, k: k, volumes: map[int]*lab.Volume{}}
	s.must(s.ClearLog())
	t.Cleanup(func() {
		if t.Failed() {
			s.sweep()
		}
	})
	return s
}

// sweep takes away what a failed scene left, so that it fails alone.
func (s *scene) sweep() {
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

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// run starts the daemon: the one that is released wherever that can work.
func (s *scene) run(flags ...string) *lab.Process {
	s.Helper()
	s.with(lab.Spec{Args: flags})
	return s.d
}

// storage makes what allocation index needs and returns the entry for it.
func (s *scene) storage(index int, o lab.VolumeOptions) world.MountSpec {
	s.Helper()
	if s.k.lvm {
		o.Raw, o.Shared = s.k.file, s.k.locks
		s.volumes[index] = s.Volume(index, o)
	}
	return s.k.spec(s.Path(fmt.Sprintf("m%d", index)), index)
}

// ready is a scene with the shipped profile, one volume and a daemon.
func (s *scene) ready(flags ...string) world.MountSpec {
	s.Helper()
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.run(flags...)
	return m
}

// ends stops the daemon the gentle way and looks for what it left.
func (s *scene) ends() {
	s.Helper()
	s.stops()
	s.NothingLeft()
	s.noRecords()
}

func (s *scene) stops() {
	s.Helper()
	s.Stop(s.d)
}

func (s *scene) records() []string {
	list, err := filepath.Glob(filepath.Join(s.Runtime, "mounts", "*"))
	s.must(err)
	return list
}

func (s *scene) noRecords() {
	s.Helper()
	if list := s.records(); len(list) > 0 {
		s.Errorf("records left behind: %s", list)
	}
	if _, err := os.Lstat(s.Base); !os.IsNotExist(err) {
		s.Errorf("%s was made for mounts and is left behind: %v", s.Base, err)
	}
}

// gate makes the next matching call of a program wait, and returns the function
// that lets it go on; the scene's end opens it at the latest.
func (s *scene) gate(tool string, f lab.Fault) (reached, open func()) {
	s.Helper()
	path, open0 := s.Gate(fmt.Sprintf("%s-%s", s.Node, tool))
	f.Gate = path
	s.must(s.Fault(tool, f))
	s.Cleanup(func() { _ = open0() })
	reached = func() {
		s.Helper()
		_, err := s.WaitCall(s.Context(patience), func(c lab.Call) bool {
			return c.Tool == tool && c.Exit == -1 && strings.Contains(strings.Join(c.Argv, " "), f.Match)
		})
		s.must(err)
	}
	return reached, func() { s.Helper(); s.must(open0()) }
}

// writes counts the requests that may change something.
func writes(p *lab.Proxy) int {
	return p.Count(lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate, lab.ClassCreate, lab.ClassDelete, lab.ClassOther)
}

// with runs the daemon with options of its own and waits until it is ready.
func (s *scene) with(o lab.Spec) {
	s.Helper()
	if s.k.test {
		o.Program, o.Env = lab.TestBuild, append(o.Env, world.FSTypes)
	}
	s.d = s.StartDaemon(o)
}
