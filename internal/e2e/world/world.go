// Package world fills a lab with a real API server and the objects that exist before
// a daemon has work: nodes, rabbits, profiles, volumes, jobs and ClientMounts. Tests,
// the demonstration and the benchmark start the daemons in it.
//
// It must not know what a test is about: it asserts nothing but that a test leaves
// nothing behind.
package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// FSTypes tells the test build of clientmountd what the stand-ins of mount helpers
// really mount.
const FSTypes = "CLIENTMOUNTD_TEST_FSTYPES=gfs2=xfs,lustre=tmpfs"

// RequireVar makes a machine that cannot run the tests a failure.
const RequireVar = "E2E_REQUIRE"

// Patience bounds what should take milliseconds, on a machine that is busy.
const Patience = 60 * time.Second

// What the tests of a binary share.
var (
	theLab     *lab.Lab
	theCluster *lab.Cluster
	whyNot     string
)

// Main is what TestMain calls: os.Exit(world.Main(m)). It enters the lab, starts
// the API server, runs the tests and takes all down again. With CRDS set, the API
// server has the definitions of that directory.
func Main(m *testing.M) int {
	features := lab.Enter()
	if !features.Private {
		whyNot = "no lab on this machine: " + features.Why
	} else if !features.Full() {
		whyNot = "real mounts are not possible here: " + features.Why
	}
	if whyNot != "" {
		fmt.Fprintln(os.Stderr, "e2e: not run:", whyNot)
		if os.Getenv(RequireVar) != "" {
			return 1
		}
		return m.Run()
	}
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return code
}

func run(m *testing.M) (code int, err error) {
	if theLab, err = lab.New(""); err != nil {
		return 1, err
	}
	defer func() {
		if cerr := theLab.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("the tests left something: %w", cerr)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	o := lab.ClusterOptions{}
	if dir := os.Getenv("CRDS"); dir != "" {
		o.Args = []string{"--crds", dir}
	}
	if theCluster, err = theLab.StartCluster(ctx, o); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// Root is the repository's directory.
func Root(tb lab.TB) string {
	tb.Helper()
	dir, err := lab.Repository()
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// World is one test's: a compute node with its rabbit, each with a namespace, and
// everything that has to differ between the tests on one API server.
type World struct {
	*lab.Lab
	Cluster *lab.Cluster
	Node    string // name and namespace
	Rabbit  string // name and namespace, which Site makes
	System  string // name of the SystemConfiguration, which Site makes
	Owner   string // uid of the NnfStorage, which names the volume group
	Profile string // name of the storage profile in namespace default
	Base    string // mount below this
	Runtime string // directory of clientmountd
	Files   string // directory that every user can reach
	Socket  string // of nnf-dm

	Patience time.Duration // bounds what the world waits for; the constant unless changed

	API   lab.API    // of the daemons that are started
	Token string     // their token file; the one that API says unless set
	Proxy *lab.Proxy // between them and the API server; nil without UseProxy

	tb lab.TB
}

var worlds atomic.Int64

// New builds a world on the test binary's lab and API server. At the end of the
// test the stand-ins behave again, and nothing of it may be left.
func New(tb testing.TB) *World {
	tb.Helper()
	if whyNot != "" {
		tb.Skip("not run: " + whyNot)
	}
	return On(tb, theLab, theCluster)
}

// On builds a world on another lab or another API server.
func On(tb lab.TB, l *lab.Lab, c *lab.Cluster) *World {
	tb.Helper()
	n := worlds.Add(1)
	w := &World{
		Lab: l, Cluster: c, tb: tb, API: c.API(), Patience: Patience,
		Node:    fmt.Sprintf("compute-%d-%d", os.Getpid(), n),
		Rabbit:  fmt.Sprintf("rabbit-%d-%d", os.Getpid(), n),
		Owner:   fmt.Sprintf("2c5d0000-0000-4000-8000-%012d", n),
		Profile: fmt.Sprintf("job%d-0", n),
		System:  fmt.Sprintf("compute-%d-%d", os.Getpid(), n),
		Base:    fmt.Sprintf("%s/%d", l.MountBase, n),
		Runtime: fmt.Sprintf("%s/runtime-%d", l.Dir, n),
		Files:   fmt.Sprintf("%s/world-%d", l.Dir, n),
	}
	w.Socket = filepath.Join(w.Files, "nnf-dm.sock")
	// The sockets are for other users, too.
	w.Must(os.Mkdir(w.Files, 0o755))
	w.Must(os.Chmod(l.Dir, 0o711))
	w.Namespace(w.Node)
	tb.Cleanup(func() {
		w.Must(w.ClearFaults())
		if !tb.Failed() {
			w.nothingOfMineLeft()
		}
	})
	return w
}

// For returns the world for a subtest: what fails then fails there.
func (w *World) For(tb lab.TB) *World {
	c := *w
	c.tb = tb
	return &c
}

// As returns the world with another node, whose namespace is made.
func (w *World) As(node string) *World {
	w.tb.Helper()
	c := *w
	c.Node = node
	c.Namespace(node)
	return &c
}

// Must fails the test with an error.
func (w *World) Must(err error) {
	w.tb.Helper()
	if err != nil {
		w.tb.Fatal(err)
	}
}

// Context ends with the test, or after d.
func (w *World) Context(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(w.tb.Context(), d)
	w.tb.Cleanup(cancel)
	return ctx
}

// Write writes a file of the world the way a site's tools do: at once.
func (w *World) Write(name string, data []byte) string {
	w.tb.Helper()
	path := filepath.Join(w.Files, name)
	w.Must(os.WriteFile(path+".new", data, 0o600))
	w.Must(os.Rename(path+".new", path))
	return path
}

// Settings is a configuration file with these lines, as a flag.
func (w *World) Settings(lines ...string) string {
	w.tb.Helper()
	return "--config=" + w.Write("config.toml", []byte("version = 1\n"+strings.Join(lines, "\n")+"\n"))
}

// UseProxy puts a proxy between the API server and the daemons that are started
// from here on.
func (w *World) UseProxy() *lab.Proxy {
	w.tb.Helper()
	p, err := lab.StartProxy(w.Cluster.URL, w.Cluster.CA())
	w.Must(err)
	w.tb.Cleanup(func() { _ = p.Close() })
	w.Proxy, w.API.Address, w.API.Cert = p, p.Address, w.Write("ca.pem", p.CA())
	return p
}

// Spec completes that of a daemon on this node.
func (w *World) Spec(s lab.Spec) lab.Spec {
	if (s.API == lab.API{}) {
		s.API = w.API
	}
	if s.Node == "" {
		s.Node = w.Node
	}
	own := []string{"--runtime-directory=" + w.Runtime, "--mount-namespace=any"} // the lab has one of its own
	if filepath.Base(s.Program) == "nnf-dm" {
		own = []string{"--socket=" + w.Socket, "--sys-config=" + w.System}
	}
	if w.Token != "" {
		own = append(own, "--service-token-file="+w.Token)
	}
	s.Args = append(own, s.Args...)
	return s
}

// Launch starts a daemon on this node and does not wait for anything.
func (w *World) Launch(s lab.Spec) *lab.Process {
	w.tb.Helper()
	return lab.Start(w.tb, w.Lab, w.Spec(s))
}

// StartDaemon is Launch, and waits until the daemon is ready.
func (w *World) StartDaemon(s lab.Spec) *lab.Process {
	w.tb.Helper()
	p := w.Launch(s)
	w.Ready(p)
	return p
}

// Start runs clientmountd as it is released, with its flags.
func (w *World) Start(flags ...string) *lab.Process {
	w.tb.Helper()
	return w.StartDaemon(lab.Spec{Args: flags})
}

// StartMover runs nnf-dm as it is released, with its flags.
func (w *World) StartMover(flags ...string) *lab.Process {
	w.tb.Helper()
	return w.StartDaemon(lab.Spec{Program: "nnf-dm", Args: flags})
}

// Ready waits until a daemon is ready, and returns how long that took since its exec.
func (w *World) Ready(p *lab.Process) time.Duration {
	w.tb.Helper()
	took, err := p.WaitReady(w.Context(w.Patience))
	if err != nil {
		w.tb.Fatal("the daemon does not become ready: ", err)
	}
	return took
}

// Stop asks a process to end and fails the test unless it does so with exit code 0.
func (w *World) Stop(p *lab.Process) {
	w.tb.Helper()
	w.Must(p.Stop(w.Context(w.Patience)))
}

// NothingLeft fails the test when mounts, active volumes, locks or processes of any
// world remain. Daemons must have been stopped before.
func (w *World) NothingLeft() {
	w.tb.Helper()
	left, err := w.Leftovers()
	w.Must(err)
	for _, l := range left {
		w.tb.Error("left behind: ", l)
	}
}

// nothingOfMineLeft is NothingLeft without what other worlds have.
func (w *World) nothingOfMineLeft() {
	w.tb.Helper()
	left, err := w.Leftovers()
	w.Must(err)
	for _, l := range left {
		if strings.Contains(l, w.Base+"/") || strings.Contains(strings.ReplaceAll(l, "--", "-"), w.Owner) {
			w.tb.Error("left behind: ", l)
		}
	}
}
