// Package fleet provides a fleet of compute nodes for tests of nnf-deploy. Each node is a container
// with its own systemd and sshd, behind a network connection that the test can break, slow
// down or block. The API server and the administrator's ssh are real; the configuration and
// keys of ssh are created for the test.
//
// It must not depend on how nnf-deploy works: it checks the files and processes on the nodes
// after a run.
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

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/machine"
)

// Tools are the programs that a fleet needs, including those of a container.
var Tools = append([]string{"ssh", "ssh-keygen"}, machine.ContainerTools...)

// Rabbit is the storage node to which the compute nodes are attached.
const Rabbit = "rabbit-01"

var fleets atomic.Int64

// Fleet is a system: compute nodes with sshd, the cluster with their SystemConfiguration, and
// the administrator's files to reach both.
type Fleet struct {
	Nodes      []*Node
	Dir        string // directory with the administrator's keys and ssh configuration
	Kubeconfig string

	*machine.Machine // that of the first node, for the fixture and the cluster

	t testing.TB
}

// Node is a compute node.
type Node struct {
	*machine.Machine
	line    *line
	hostKey string // in the format of known_hosts
}

// New boots a fleet of nodes compute-01 and so on. The last one is an external compute node.
func New(t testing.TB, count int) *Fleet {
	t.Helper()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("compute-%02d", i+1))
	}
	f := &Fleet{t: t}
	for i, m := range machine.Containers(t, f.prepare, names...) {
		if i == 0 {
			f.Machine = m
		}
		f.Nodes = append(f.Nodes, f.connect(m))
	}
	f.Kubeconfig = filepath.Join(f.Fixture.Cluster.Dir, "admin.kubeconfig")
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

// prepare returns the files that a node has before it boots. The first call creates the
// administrator's directory.
func (f *Fleet) prepare(s *fixture.Fixture, node string) []machine.File {
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

// For returns the fleet for a subtest, which fails if an action fails.
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

// Set sets the faults of the line to a node, until the end of the test.
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

// Connections returns the number of connections to each node since the last call.
func (f *Fleet) Connections() map[string]int {
	counts := map[string]int{}
	for _, n := range f.Nodes {
		counts[n.Name] = n.line.Connections()
	}
	return counts
}

// keygen creates a key pair in the administrator's directory and returns the public key.
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

// system creates the SystemConfiguration, and applies the manifests of the daemons, as an
// administrator does when setting up a system.
func (f *Fleet) system() {
	f.t.Helper()
	f.Fixture.Apply(f.configuration())
	for _, daemon := range daemons {
		f.Fixture.ApplyFile(filepath.Join(f.repository(), "packaging/manifests", daemon+"-rbac.yaml"))
	}
}

// configuration returns the SystemConfiguration.
func (f *Fleet) configuration() lab.Object {
	var attached []string
	var external []any
	for i, n := range f.Nodes {
		if i < len(f.Nodes)-1 {
			attached = append(attached, n.Name)
		} else {
			external = append(external, map[string]any{"name": n.Name})
		}
	}
	return fixture.SystemConfiguration("default", []any{fixture.StorageNode(Rabbit, attached...)}, external...)
}

// accounts creates the accounts of all nodes.
func (f *Fleet) accounts() {
	f.t.Helper()
	for _, n := range f.Nodes {
		f.Fixture.Namespace(n.Name)
	}
	f.Fixture.Namespace(Rabbit)
	for _, o := range f.Fixture.NodeObjects(f.configuration()) {
		f.Fixture.ApplyStrict(o)
	}
}

func (f *Fleet) repository() string { return fixture.Root(f.t) }

// daemons are the names of the deployed programs, and so of their units and of their
// directories below /etc.
var daemons = product.Names()

// Process describes the main process of a unit: its PID, start time and command line.
func (n *Node) Process(unit string) string {
	return n.Do(fmt.Sprintf(`p=$(systemctl show --value -p MainPID %[1]s); echo $p $(systemctl show --value -p ExecMainStartTimestampMonotonic %[1]s); [ $p = 0 ] || tr '\0' ' ' </proc/$p/cmdline`, unit))
}

// Sum returns the SHA-256 of a file, or "" if it does not exist.
func (n *Node) Sum(path string) string {
	sum, _, _ := strings.Cut(n.Do("sha256sum "+path+" 2>/dev/null || :"), " ")
	return sum
}

// Files lists all files of a node with mode, owner, change time and size, and the installed
// packages. It leaves out the state of systemd and rpm.
func (n *Node) Files() string {
	return n.Do(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /var/lib/rpm -o -path /var/lib/systemd \
		-o -path /var/cache -o -name 'systemd-private-*' \) -prune -o -not -type d -printf '%p %m %u:%g %C@ %s\n' | sort; find /var/lib/nnf-deploy /tmp /var/tmp -mindepth 1 -type d -not -path '*systemd-private*' 2>/dev/null; rpm -qa | sort`)
}

// Release returns the version of the release whose programs the node has, or "none". If the
// programs are mixed, it returns the version of each.
func (n *Node) Release(releases ...*Release) string {
	var found []string
	for _, p := range programs {
		sum, version := n.Sum("/usr/bin/"+p), "none"
		for _, r := range releases {
			if r.Sums[p] == sum {
				version = r.Version
			}
		}
		if sum != "" && version == "none" {
			version = "unknown"
		}
		found = append(found, version)
	}
	if found[0] == found[1] && found[1] == found[2] {
		return found[0]
	}
	return fmt.Sprintf("%q of %q", found, programs)
}

// rotate creates a new token for the account of a daemon, and returns it. The API server
// refuses the old one within seconds.
func (f *Fleet) rotate(daemon string) string {
	f.t.Helper()
	program, err := lab.Binary("devcluster")
	if err != nil {
		f.t.Fatal(err)
	}
	if r := f.Run(nil, program, "token", "--dir", f.Fixture.Cluster.Dir, "--daemon", daemon); r.Code != 0 {
		f.t.Fatalf("a new token for %s: %+v", daemon, r)
	}
	return f.token(daemon)
}

// token returns the current token of the account of a daemon.
func (f *Fleet) token(daemon string) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.Fixture.Cluster.Dir, daemon, product.TokenFile))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
