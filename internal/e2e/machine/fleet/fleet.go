// Package fleet has a fleet of compute nodes for nnf-deploy: each is a container
// with systemd and an sshd of its own, behind a line that the test can cut, slow
// down or silence. The API server is real, as are the administrator's ssh, its
// configuration and its keys, which are made for the test.
//
// It must not know how nnf-deploy does its work: it looks at what lies and runs
// on the nodes afterwards.
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

	*machine.Machine // the first node's; for the world and the cluster

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

// lay says what a node has before it boots. The administrator's directory is made
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

// keygen makes a key pair in the administrator's directory and returns the public
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
	var attached []string
	var external []any
	for i, n := range f.Nodes {
		if i < len(f.Nodes)-1 {
			attached = append(attached, n.Name)
		} else {
			external = append(external, map[string]any{"name": n.Name})
		}
	}
	f.World.Apply(world.SystemConfiguration("default", []any{world.StorageNode(Rabbit, attached...)}, external...))
	for _, daemon := range daemons {
		f.World.ApplyFile(filepath.Join(f.repository(), "packaging/manifests", daemon+"-rbac.yaml"))
	}
}

func (f *Fleet) repository() string { return world.Root(f.t) }

// daemons are what is deployed; each is the name of a program, of its unit and
// of its directory below /etc.
var daemons = product.Names()

// Process is a unit's process: which it is, since when, and what it was told.
func (n *Node) Process(unit string) string {
	return n.Do(fmt.Sprintf(`p=$(systemctl show --value -p MainPID %[1]s); echo $p $(systemctl show --value -p ExecMainStartTimestampMonotonic %[1]s); [ $p = 0 ] || tr '\0' ' ' </proc/$p/cmdline`, unit))
}

// Sum is the SHA-256 of a file; "" when there is none.
func (n *Node) Sum(path string) string {
	sum, _, _ := strings.Cut(n.Do("sha256sum "+path+" 2>/dev/null || :"), " ")
	return sum
}

// Files lists all that lies in a node's file systems, each with its mode,
// owner, time of change and size. What systemd and rpm note for themselves is
// left out.
func (n *Node) Files() string {
	return n.Do(`find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log -o -path /var/lib/rpm -o -path /var/lib/systemd \
		-o -path /var/cache -o -name 'systemd-private-*' \) -prune -o -not -type d -printf '%p %m %u:%g %C@ %s\n' | sort; find /var/lib/nnf-deploy /tmp /var/tmp -mindepth 1 -type d -not -path '*systemd-private*' 2>/dev/null; rpm -qa | sort`)
}

// Release says which release's programs the node has: its version; "none";
// or what it has of which.
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

// rotate gives a daemon's account a new token. The API server refuses the old
// one within seconds. It returns the new token.
func (f *Fleet) rotate(daemon string) string {
	f.t.Helper()
	program, err := lab.Binary("devcluster")
	if err != nil {
		f.t.Fatal(err)
	}
	if r := f.Run(nil, program, "token", "--dir", f.World.Cluster.Dir, "--daemon", daemon); r.Code != 0 {
		f.t.Fatalf("a new token for %s: %+v", daemon, r)
	}
	return f.token(daemon)
}

// token is what the daemon's account has now.
func (f *Fleet) token(daemon string) string {
	f.t.Helper()
	data, err := os.ReadFile(filepath.Join(f.World.Cluster.Dir, daemon, product.TokenFile))
	if err != nil {
		f.t.Fatal(err)
	}
	return strings.TrimSpace(string(data))
}
