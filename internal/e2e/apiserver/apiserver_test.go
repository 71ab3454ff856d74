// Package apiserver tests the released daemon with an API server that is down, slow or
// wrong, that has another version or another CA, and with credentials that change or lose
// permissions. Each test has a separate node, proxy and daemon, so that tests run in
// parallel; those that affect the server itself have a separate server.
//
// The package does not depend on how the daemon reconciles. It checks the mount table, the
// API objects, the requests that the proxy has counted, and the log and status that an
// administrator sees.
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

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Tests wait most of the time, so many can run in parallel on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "24")
	os.Exit(fixture.Main(m))
}

// TestMatrix runs all tests in parallel, and then checks that none has left anything.
func TestMatrix(t *testing.T) {
	t.Run("tests", func(t *testing.T) {
		for _, group := range []map[string]func(*env){
			budgetTests, outageTests, watchTests, writeTests, credentialTests, rightTests, doctorTests,
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
	fixture.New(t).NothingLeft()
}

const (
	// resume is how long the daemon may take after the server is back and one injected
	// failure: its longest delay is 30 s, and the machine may be busy.
	resume = 80 * time.Second
	// soon bounds operations that take milliseconds.
	soon = 30 * time.Second
)

// env is a node, a proxy in front of the API server, and clientmountd.
type env struct {
	*fixture.Fixture
	t      *testing.T
	daemon *lab.Process
	mounts []string // ClientMounts that exist

	volumes int // number of created volumes
}

func newEnv(t *testing.T) *env {
	t.Helper()
	s := bare(t, fixture.New(t))
	s.UseProxy()
	return s
}

// bare returns an env without a proxy.
func bare(t *testing.T, w *fixture.Fixture) *env {
	t.Helper()
	w.UseProfile(fixture.ProfileSpec{})
	w.Token = w.Cluster.TokenFile()
	return &env{Fixture: w, t: t}
}

// launch starts the daemon without waiting.
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

// notReady fails the test if the daemon has sent READY.
func (s *env) notReady() {
	s.t.Helper()
	for _, n := range s.daemon.Notices() {
		if _, yes := n.Value("READY"); yes {
			s.t.Fatal("READY before the first list")
		}
	}
}

// ask creates a volume and a ClientMount with the desired state mounted, and returns the
// name of both.
func (s *env) ask() string {
	s.t.Helper()
	index := s.volumes
	s.volumes++
	name := fmt.Sprintf("m%d", index)
	s.Volume(index, lab.VolumeOptions{})
	s.Mount(name, fixture.MountSpec{Path: s.Path(name), Type: "xfs", Index: index})
	s.mounts = append(s.mounts, name)
	return name
}

// mounted creates a ClientMount and waits until it is mounted and the daemon has received
// the response to its status patch.
func (s *env) mounted() string {
	s.t.Helper()
	name := s.ask()
	s.Await(name, "mounted")
	s.settled(name)
	s.isMounted(name, true)
	return name
}

// isMounted checks the mount table.
func (s *env) isMounted(name string, want bool) {
	s.t.Helper()
	m, ok, err := s.MountAt(s.Path(name))
	s.Must(err)
	if ok != want || ok && m.Type != "xfs" {
		s.t.Fatalf("%s: mounted is %v, want %v (%+v)", name, ok, want, m)
	}
}

// finish ends every test: it checks that the daemon still runs, mounts and unmounts another
// object and exits without errors, and that nothing is left.
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
	// A record goes after the object, which the server may remove without a response.
	wait.Until(s.t, "the daemon removes all records", func() bool {
		records, err := filepath.Glob(filepath.Join(clientmount.RecordsDirectory(s.Runtime), "*.json"))
		s.Must(err)
		return len(records) == 0
	})
	s.Stop(s.daemon)
}

// calls returns the number of calls of a tool for a mount.
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

// onceMounted fails the test unless mount was called exactly once for the object.
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
