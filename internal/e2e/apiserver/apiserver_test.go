// Package apiserver is the matrix of troubles with the API server: the daemon
// as it is released meets a server that is down, slow, wrong, of another
// version or of another authority, and credentials that change or lose rights.
// Each test has a node, a proxy and a daemon of its own, so that they run side
// by side; those that harm the server itself have a server of their own.
//
// It must not know how the daemon reconciles: it looks at the kernel's mount
// table, at the API objects, at what the proxy counted, and at the log and
// status that an administrator sees.
package apiserver

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Tests spend their time waiting, so many fit on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "24")
	os.Exit(world.Main(m))
}

// TestMatrix runs all tests side by side and then looks whether anything of
// any of them is left.
func TestMatrix(t *testing.T) {
	t.Run("tests", func(t *testing.T) {
		for _, group := range []map[string]func(*env){
			budgetTests, outageTests, watchTests, writeTests, credentialTests, rightTests,
		} {
			for name, test := range group {
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					s := newEnv(t)
					test(s)
					s.finish()
				})
			}
		}
		t.Run("own server", func(t *testing.T) {
			t.Parallel()
			ownServer(t)
		})
	})
	world.New(t).NothingLeft()
}

const (
	// resume is what the daemon may take after the server is back: its
	// longest delay is 30 s, and the machine may be busy.
	resume = 40 * time.Second
	// soon bounds what should take milliseconds.
	soon = 30 * time.Second
)

// env is a node, a proxy in front of the API server, and clientmountd.
type env struct {
	*world.World
	t      *testing.T
	daemon *lab.Process
	mounts []string // ClientMounts that exist

	volumes int // made so far
}

func newEnv(t *testing.T) *env {
	t.Helper()
	s := bare(t, world.New(t))
	s.UseProxy()
	return s
}

// bare has no proxy.
func bare(t *testing.T, w *world.World) *env {
	t.Helper()
	w.UseProfile(world.ProfileSpec{})
	w.Token = w.Cluster.TokenFile()
	return &env{World: w, t: t}
}

// launch starts the daemon and does not wait for anything.
func (s *env) launch(flags ...string) {
	s.t.Helper()
	s.daemon = s.Launch(lab.Spec{Args: flags})
}

// start starts the daemon and waits until it is ready.
func (s *env) start(flags ...string) {
	s.t.Helper()
	s.launch(flags...)
	s.ready(soon)
}

func (s *env) ready(limit time.Duration) {
	s.t.Helper()
	if _, err := s.daemon.WaitReady(s.Context(limit)); err != nil {
		s.t.Fatal("the daemon does not become ready: ", err)
	}
}

// notReady fails when the daemon has said READY.
func (s *env) notReady() {
	s.t.Helper()
	for _, n := range s.daemon.Notices() {
		if _, yes := n.Value("READY"); yes {
			s.t.Fatal("READY although the objects of the node are not known")
		}
	}
}

// ask makes a volume and a ClientMount that wants it mounted, and returns the
// name of both.
func (s *env) ask() string {
	s.t.Helper()
	index := s.volumes
	s.volumes++
	name := fmt.Sprintf("m%d", index)
	s.Volume(index, lab.VolumeOptions{})
	s.Mount(name, world.MountSpec{Path: s.Path(name), Type: "xfs", Index: index})
	s.mounts = append(s.mounts, name)
	return name
}

// mounted asks for a mount and waits until it is there, and until the daemon
// itself knows that the server knows.
func (s *env) mounted() string {
	s.t.Helper()
	name := s.ask()
	s.Await(name, "mounted")
	s.settled(name)
	s.isMounted(name, true)
	return name
}

// isMounted looks at the kernel's table.
func (s *env) isMounted(name string, want bool) {
	s.t.Helper()
	m, ok, err := s.MountAt(s.Path(name))
	s.Must(err)
	if ok != want || ok && m.Type != "xfs" {
		s.t.Fatalf("%s: mounted is %v, want %v (%+v)", name, ok, want, m)
	}
}

// finish is the end of every test: the daemon lives, serves a last mount's
// life, ends well, and nothing is left.
func (s *env) finish() {
	s.t.Helper()
	if s.daemon == nil {
		return
	}
	select {
	case <-s.daemon.Done():
		s.t.Fatal("the daemon has died")
	default:
	}
	if len(s.mounts) == 0 {
		s.mounted()
	}
	for _, name := range s.mounts {
		s.Delete(name)
		s.isMounted(name, false)
	}
	s.Stop(s.daemon)
	if records, err := filepath.Glob(filepath.Join(s.Runtime, "*.json")); err != nil || len(records) > 0 {
		s.t.Errorf("records left behind: %v %v", records, err)
	}
}

// calls counts the runs of a tool for a mount.
func (s *env) calls(tool, name string) (n int) {
	s.t.Helper()
	calls, err := s.Log()
	s.Must(err)
	for _, c := range calls {
		if c.Tool == tool && slices.Contains(c.Argv, s.Path(name)) {
			n++
		}
	}
	return n
}

// onceMounted fails unless exactly one command mounted it.
func (s *env) onceMounted(name string) {
	s.t.Helper()
	if n := s.calls("mount", name); n != 1 {
		s.t.Errorf("%d mount commands for %s", n, name)
	}
}

func number(t *testing.T, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
