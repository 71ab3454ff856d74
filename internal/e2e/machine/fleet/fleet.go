package fleet

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Tools are the programs that a fleet needs besides those of a container.
var Tools = append([]string{"ssh", "ssh-keygen"}, machine.ContainerTools...)

// Rabbit is the storage node to which the computes are attached.
const Rabbit = "rabbit-01"

var fleets atomic.Int64

// Fleet is a system: computes with sshd, the cluster that knows them, and what
// an administrator has to reach both.
type Fleet struct {
	Nodes      []*Node
	Dir        string // the administrator's: keys, configuration of ssh
	Kubeconfig string

	*machine.Machine // the first node's; for the stage and the cluster

	t testing.TB
}

// Node is a compute node.
type Node struct {
	*machine.Machine
	line    *line
	hostKey string // as known_hosts has it
}

// New boots the fleet: compute-01 and so on, the last one external.
func New(t testing.TB, count int) *Fleet {
	t.Helper()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("compute-%02d", i+1))
	}
	f := &Fleet{t: t}
	for i, m := range machine.Containers(t, f.lay, names...) {
		if i == 0 {
			f.Machine = m
		}
		f.Nodes = append(f.Nodes, f.connect(m))
	}
	f.Kubeconfig = filepath.Join(f.World.Cluster.Dir, "admin.kubeconfig")
	t.Cleanup(func() {
		for _, n := range f.Nodes {
			if t.Failed() {
				t.Logf("%s:\n%s", n.Name, n.Journal("clientmountd -u nnf-dm -u nnf-dm.socket", "-n 60 -o short-precise"))
			}
		}
	})
	f.writeConfig()
	f.writeKnownHosts()
	f.system()
	return f
}

// lay says what a node has before it boots. The administrator's folder is made
// with the first.
func (f *Fleet) lay(s *world.World, node string) []machine.File {
	f.t.Helper()
	if f.Dir == "" {
		f.Dir = filepath.Join(s.Dir, fmt.Sprintf("administrator-%d", fleets.Add(1)))
		if err := os.Mkdir(f.Dir, 0o700); err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() {
			if err := os.RemoveAll(f.Dir); err != nil {
				f.t.Error(err)
			}
		})
		f.keygen("key")
	}
	return f.sshd(node)
}

// For returns the fleet for a subtest: what fails then fails there.
func (f *Fleet) For(t testing.TB) *Fleet {
	c := *f
	c.t, c.Nodes = t, nil
	for _, n := range f.Nodes {
		n := *n
		n.Machine = n.Machine.For(t)
		c.Nodes = append(c.Nodes, &n)
	}
	c.Machine = c.Nodes[0].Machine
	return &c
}

// Set gives the line to a node faults, until the end of the test.
func (f *Fleet) Set(n *Node, faults Faults) {
	f.t.Helper()
	if err := n.line.Set(faults); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := n.line.Set(Faults{}); err != nil {
			f.t.Error(err)
		}
	})
}

// Connections is how many reached each node since the last call.
func (f *Fleet) Connections() map[string]int {
	counts := map[string]int{}
	for _, n := range f.Nodes {
		counts[n.Name] = n.line.Connections()
	}
	return counts
}

// keygen makes a key pair in the administrator's folder and returns the public
// one.
func (f *Fleet) keygen(name string) string {
	f.t.Helper()
	path := filepath.Join(f.Dir, name)
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "e2e", "-f", path).CombinedOutput(); err != nil {
		f.t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return f.read(name + ".pub")
}

func (f *Fleet) read(name string) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.Dir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}

func (f *Fleet) write(name string, mode fs.FileMode, text string) string {
	f.t.Helper()
	path := filepath.Join(f.Dir, name)
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
	return path
}

// system tells the cluster of the computes, as an administrator does when the
// system is set up.
func (f *Fleet) system() {
	f.t.Helper()
	var attached, external []any
	for i, n := range f.Nodes {
		if i < len(f.Nodes)-1 {
			attached = append(attached, map[string]any{"index": i, "name": n.Name})
		} else {
			external = append(external, map[string]any{"name": n.Name})
		}
	}
	f.World.Apply(lab.Object{
		"apiVersion": api.GroupDWS + "/" + api.VersionsDWS[0], "kind": "SystemConfiguration",
		"metadata": map[string]any{"name": "default", "namespace": "default"},
		"spec": map[string]any{
			"storageNodes":         []any{map[string]any{"type": "Rabbit", "name": Rabbit, "computesAccess": attached}},
			"externalComputeNodes": external,
		},
	})
	for _, daemon := range daemons {
		f.World.ApplyFile(filepath.Join(f.repository(), "packaging/manifests", daemon+"-rbac.yaml"))
	}
}

func (f *Fleet) repository() string { return world.Root(f.t) }
