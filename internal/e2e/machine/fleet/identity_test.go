package fleet

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// TestIdentities moves nodes with running daemons from shared credentials to accounts of their own
// and back. Both daemons use the API server after each step, and systemd has restarted them with the
// new token. Stored tokens of the daemons are removed, and uninstall leaves none.
func TestIdentities(t *testing.T) {
	f := New(t, 2)
	older, _ := f.Releases()
	f.Distribution(f.Nodes...)
	f.accounts()
	expect(t, f.DeployJSON("install", older.PackageArguments()...), 0, all(f.Nodes, "ok"))
	first := f.Nodes[0]
	mount := 0
	works := func(kind string) {
		t.Helper()
		r := f.Deploy("status", "-o", "json")
		var s struct {
			Nodes []struct {
				Node    string
				Daemons []struct{ Name, API, Identity string }
			}
		}
		if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil || r.Code != 0 {
			t.Fatalf("%v: %+v", err, r)
		}
		for _, n := range s.Nodes {
			for _, d := range n.Daemons {
				if d.Identity != kind || d.Name == "clientmountd" && d.API != "answers" {
					t.Errorf("%s: %+v, want %s", n.Node, d, kind)
				}
			}
		}
		// clientmountd reports an error about a volume that does not exist.
		mount++
		name := fmt.Sprintf("identity-%d", mount)
		f.Fixture.UseProfile(fixture.ProfileSpec{})
		f.Fixture.Mount(name, fixture.MountSpec{Path: "/mnt/nnf/" + name, Type: "xfs"})
		f.Fixture.AwaitError(name)
		f.Fixture.Delete(name)
		first.Do("nnf-dmctl version")
	}
	works("shared")
	before := processes(f.Nodes)
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "per-node"), 0, all(f.Nodes, "ok"))
	if now := processes(f.Nodes); fmt.Sprint(now) == fmt.Sprint(before) {
		t.Error("the daemons were not restarted")
	}
	works("per-node")
	token := func(n *Node, daemon string) string {
		path, _ := product.Credentials(daemon)
		return strings.TrimSpace(n.Do("cat " + path))
	}
	for _, n := range f.Nodes {
		for _, d := range product.Daemons {
			if c, err := kube.ClaimsOf(token(n, d.Name)); err != nil || c.Subject != d.NodeAccount(n.Name).User() {
				t.Errorf("%s: %+v %v", n.Name, c, err)
			}
		}
	}
	kept := token(first, "nnf-dm")
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "per-node"), 0, all(f.Nodes, "unchanged"))
	if token(first, "nnf-dm") != kept {
		t.Error("a run without changes has replaced the token")
	}
	// A revoked account: only its node gets a new token.
	if err := f.Fixture.Cluster.Delete(t.Context(), "ServiceAccount", first.Name, "nnf-dm"); err != nil {
		t.Fatal(err)
	}
	f.Fixture.Apply(lab.Object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": map[string]any{"name": "nnf-dm", "namespace": first.Name}})
	want := all(f.Nodes, "unchanged")
	want[first.Name] = "ok"
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "per-node"), 0, want)
	works("per-node")
	// Without --identity, nothing moves back.
	expect(t, f.DeployJSON("install", "--no-programs"), 1, all(f.Nodes, "failed"))
	works("per-node")
	for _, d := range product.Daemons {
		first.Do(fmt.Sprintf("mkdir -p %s && cp %s/%s %s", d.RenewalDirectory(), product.Directory(d.Name), product.TokenFile, d.StoredToken()))
	}
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "shared"), 0, all(f.Nodes, "ok"))
	works("shared")
	expect(t, f.DeployJSON("uninstall"), 0, all(f.Nodes, "ok"))
	for _, n := range f.Nodes {
		n.Do("! ls /etc/*/service.token /var/lib/*/service.token")
	}
}
