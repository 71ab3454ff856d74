package fleet

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
)

// healthy checks that a node has a release and works: programs, credentials and their modes,
// units, and no temporary files.
func healthy(t *testing.T, f *Fleet, n *Node, r *Release) {
	t.Helper()
	if got := n.Release(r); got != r.Version {
		t.Errorf("%s has %s, want %s", n.Name, got, r.Version)
	}
	for _, d := range daemons {
		dir, mode, owner := "700", "600", "root:root"
		if d == "nnf-dm" {
			dir, mode, owner = "750", "640", "root:nnf-dm"
		}
		want := fmt.Sprintf("%s %s\n%[3]s %[2]s\n%[3]s %[2]s", dir, owner, mode)
		if got := n.Do(fmt.Sprintf("stat -c '%%a %%U:%%G' /etc/%[1]s /etc/%[1]s/service.token /etc/%[1]s/service.cert", d)); got != want {
			t.Errorf("%s: the credentials of %s are %q, want %q", n.Name, d, got, want)
		}
		if got, want := n.Do("cat /etc/"+d+"/service.token"), f.token(d); got != want {
			t.Errorf("%s: the token of %s is not that of its account", n.Name, d)
		}
	}
	for _, unit := range []string{"clientmountd.service", "nnf-dm.socket"} {
		if got := n.Property(unit, "ActiveState") + " " + n.Property(unit, "UnitFileState"); got != "active enabled" {
			t.Errorf("%s: %s is %s", n.Name, unit, got)
		}
	}
	if out := n.Do("runuser -u alice -- nnf-dmctl version"); !contains(out, r.Version) {
		t.Errorf("%s: nnf-dm answers a user with %q", n.Name, out)
	}
	if left := n.Do("find / -xdev -name '*nnf-deploy-*' -not -path '/proc/*' -not -name '50-nnf-deploy*'; ls /var/lib/nnf-deploy/stage 2>/dev/null || :"); left != "" {
		t.Errorf("%s: left behind: %s", n.Name, left)
	}
}

// serves checks that the node's clientmountd reports an error for a ClientMount whose volume
// does not exist.
func (n *Node) serves(name string) {
	s := n.Fixture
	s.UseProfile(fixture.ProfileSpec{})
	s.Mount(name, fixture.MountSpec{Path: "/mnt/nnf/" + name, Type: "xfs"})
	s.AwaitError(name)
}

// processes returns the processes of the daemons by node.
func processes(nodes []*Node) map[string]string {
	found := map[string]string{}
	for _, n := range nodes {
		found[n.Name] = n.Process("clientmountd.service") + "; " + n.Do("systemctl show -p ActiveEnterTimestampMonotonic nnf-dm.socket")
	}
	return found
}

// expect compares the results of nnf-deploy by node.
func expect(t *testing.T, a Answer, code int, want map[string]string) {
	t.Helper()
	if a.Code != code {
		t.Errorf("exit code %d, want %d", a.Code, code)
	}
	for name, result := range want {
		if o := a.Nodes[name]; o.Result != result {
			t.Errorf("%s is %q, want %s: %+v", name, o.Result, result, o)
		}
	}
	if len(a.Nodes) != len(want) {
		t.Errorf("results of %d nodes, want %d", len(a.Nodes), len(want))
	}
	if t.Failed() {
		t.Log(a.Stderr)
	}
}

// all returns the same result for all nodes.
func all(nodes []*Node, result string) map[string]string {
	want := map[string]string{}
	for _, n := range nodes {
		want[n.Name] = result
	}
	return want
}

// without returns nodes without those in out.
func without(nodes []*Node, out ...*Node) []*Node {
	return slices.DeleteFunc(slices.Clone(nodes), func(n *Node) bool {
		return slices.ContainsFunc(out, func(o *Node) bool { return o.Name == n.Name })
	})
}

// status is the JSON output of nnf-deploy status.
type status struct {
	Nodes []struct {
		Node          string
		Well, Answers bool
		Cause, Hint   string
		Daemons       []struct {
			Name, Version, Unit, API, Token string
			Well                            bool
			Mounts                          *int
		}
	}
}

func TestStatus(t *testing.T) {
	f := New(t, 3)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	well, stopped, dead := f.Nodes[0], f.Nodes[1], f.Nodes[2]
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	if r := f.Deploy("status"); r.Code != 0 || strings.Count(r.Stdout, older.Version) != 6 {
		t.Errorf("a system without problems: %+v", r)
	}
	stopped.Do("systemctl stop clientmountd")
	f.Set(dead, Faults{Dead: true})
	before := well.Files()
	r := f.Deploy("status", "-o", "json")
	var s status
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || r.Code != 1 || len(s.Nodes) != 3 {
		t.Fatalf("%v: %+v", err, r)
	}
	for i, want := range []string{"true true", "false true", "false false"} {
		if got := fmt.Sprint(s.Nodes[i].Well, s.Nodes[i].Answers); got != want {
			t.Errorf("%+v, want %s", s.Nodes[i], want)
		}
	}
	if s.Nodes[2].Cause == "" || s.Nodes[2].Hint == "" {
		t.Errorf("the node that does not answer: %+v", s.Nodes[2])
	}
	if now := well.Files(); now != before {
		t.Errorf("status has changed the node:\n%s", difference(before, now))
	}
	for _, d := range s.Nodes[0].Daemons {
		if !d.Well || d.Version != older.Version || d.Unit != "active" || d.Token == "" {
			t.Errorf("%+v", d)
		}
		if d.Name == "clientmountd" && (d.API != "answers" || d.Mounts == nil || *d.Mounts != 0) {
			t.Errorf("%+v", d)
		}
	}
	r = f.Deploy("status", "compute-01", "compute-02")
	if r.Code != 1 || !contains(r.Stdout, "inactive") || contains(r.Stdout, "compute-03") {
		t.Errorf("%+v", r)
	}
	t.Log("\n" + r.Stdout)
}
