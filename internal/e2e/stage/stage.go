package stage

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// FSTypes tells the test build of the daemon what the stand-ins of mount
// helpers really mount.
const FSTypes = "CLIENTMOUNTD_TEST_FSTYPES=gfs2=xfs,lustre=tmpfs"

var scenes atomic.Int64

// Stage is one scene: a node with its own namespace, runtime directory, mount
// base and volume group.
type Stage struct {
	*lab.Lab
	Cluster *lab.Cluster
	Node    string // node name and namespace
	Owner   string // uid of the NnfStorage, which names the volume group
	Profile string // name of the profile in namespace default
	Base    string // mount below this
	Runtime string

	t testing.TB
}

// New builds a scene. At its end the stand-ins behave again, and nothing of it
// may be left; tests stop their daemons, or let the scene kill them.
func New(t testing.TB) *Stage {
	t.Helper()
	if whyNot != "" {
		t.Skip("not run: " + whyNot)
	}
	n := scenes.Add(1)
	s := &Stage{
		Lab: theLab, Cluster: theCluster, t: t,
		Node:    fmt.Sprintf("compute-%d-%d", os.Getpid(), n),
		Owner:   fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", n),
		Profile: fmt.Sprintf("job%d-0", n),
		Base:    fmt.Sprintf("%s/%d", theLab.MountBase, n),
		Runtime: fmt.Sprintf("%s/runtime-%d", theLab.Dir, n),
	}
	s.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": s.Node}})
	t.Cleanup(func() {
		if err := s.ClearFaults(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// For returns the scene for a subtest: what fails then fails there.
func (s *Stage) For(t testing.TB) *Stage {
	c := *s
	c.t = t
	return &c
}

// As returns the scene with another node, whose namespace is made.
func (s *Stage) As(node string) *Stage {
	s.t.Helper()
	c := *s
	c.Node = node
	c.Apply(lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": node}})
	return &c
}

// Context ends with the test, or after d.
func (s *Stage) Context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	s.t.Cleanup(cancel)
	return ctx
}

// Flags are the arguments with which the daemon finds the API server at
// address (host:port), by the CA in certFile; both empty: the real one.
func (s *Stage) Flags(address, certFile string) []string {
	if address == "" {
		address, certFile = s.Cluster.Address(), s.Cluster.CertFile()
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		s.t.Fatal(err)
	}
	return []string{
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + s.Cluster.TokenFile(), "--service-cert-file=" + certFile,
		"--node-name=" + s.Node, "--runtime-directory=" + s.Runtime, "--log-format=json", "--config=/dev/null",
		"--mount-namespace=any", // the laboratory is one of its own
	}
}

// Start runs the daemon as it is released and waits for READY.
func (s *Stage) Start(flags ...string) *lab.Daemon {
	s.t.Helper()
	return s.start(lab.DaemonOptions{Args: append(s.Flags("", ""), flags...)})
}

// StartTest runs the test build, which knows stand-ins and failpoints.
func (s *Stage) StartTest(env []string, flags ...string) *lab.Daemon {
	s.t.Helper()
	return s.start(lab.DaemonOptions{
		Binary: TestBinary(s.t), Env: append([]string{FSTypes}, env...), Args: append(s.Flags("", ""), flags...),
	})
}

func (s *Stage) start(o lab.DaemonOptions) *lab.Daemon {
	s.t.Helper()
	d, err := s.StartDaemon(o)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() {
		d.Kill9()
		if s.t.Failed() {
			for _, line := range d.Log() {
				s.t.Log("daemon: ", line.Text)
			}
		}
	})
	if _, err := d.WaitReady(s.Context(30 * time.Second)); err != nil {
		s.t.Fatal("the daemon does not become ready: ", err)
	}
	return d
}

// TestBinary is the path of the test build: CLIENTMOUNTD_TEST or the
// repository's bin folder.
func TestBinary(t testing.TB) string {
	t.Helper()
	if path := os.Getenv("CLIENTMOUNTD_TEST"); path != "" {
		return path
	}
	path := filepath.Join(Root(t), "bin", "clientmountd-failpoints")
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("there is no %s: run make build-test", path)
	}
	return path
}

// Root is the repository's folder.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "Makefile")); err == nil {
			return dir
		}
	}
	t.Fatal("the test does not run inside the repository")
	return ""
}
