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
	older, newer := f.Releases()
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
	timer := func(want string) {
		t.Helper()
		for _, n := range f.Nodes {
			if got := n.Property("nnf-dm.timer", "UnitFileState") + " " + n.Property("nnf-dm.timer", "ActiveState"); got != want {
				t.Errorf("%s: nnf-dm.timer is %s, want %s", n.Name, got, want)
			}
		}
	}
	works("shared")
	timer("disabled inactive")
	before := processes(f.Nodes)
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "per-node"), 0, all(f.Nodes, "ok"))
	if now := processes(f.Nodes); fmt.Sprint(now) == fmt.Sprint(before) {
		t.Error("the daemons were not restarted")
	}
	works("per-node")
	timer("enabled active")
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
	// What a daemon has stored is removed wherever it is configured to store it.
	mover, _ := product.Of("nnf-dm")
	const elsewhere = "/srv/nnf-dm"
	stores := func() {
		for _, d := range product.Daemons {
			first.Do(fmt.Sprintf("cd %s && cp %s/%s . && touch %s", d.RenewalDirectory(), product.Directory(d.Name), product.TokenFile, product.StoredFiles[1]))
		}
		first.Do(fmt.Sprintf("install -d -m 0700 -o %[1]s -g %[1]s %[2]s && touch %[2]s/%[3]s %[2]s/%[4]s", mover.User, elsewhere, product.TokenFile, product.StoredFiles[1]))
	}
	first.Setting("nnf-dm", "90-site", "[daemon]\nstate_directory = \""+elsewhere+"\"\n")
	stores()
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "shared"), 0, all(f.Nodes, "ok"))
	works("shared")
	timer("disabled inactive")
	none := func() {
		t.Helper()
		first.Do("! ls /var/lib/*/service.token* /srv/*/service.token*")
	}
	none()
	expect(t, f.DeployJSON("install", "--no-programs", "--identity", "per-node"), 0, all(f.Nodes, "ok"))
	stores()
	expect(t, f.DeployJSON("uninstall"), 0, all(f.Nodes, "ok"))
	none()
	gone := func() {
		t.Helper()
		for _, n := range f.Nodes {
			n.Do("! ls -d /etc/*/service.token /var/lib/*/service.token /var/lib/nnf-dm /etc/systemd/system/nnf-dm.timer* /etc/systemd/system/timers.target.wants/nnf-dm.timer")
		}
	}
	gone()

	// Without packages, nnf-deploy provides the timer, and the directory in which nnf-dm can store its
	// token in its sandbox. A package then takes over.
	first.Do("rm -f /etc/nnf-dm/config.d/90-site.toml")
	expect(t, f.DeployJSON("install", "--binary-dir", older.Programs, "--identity", "per-node"), 0, all(f.Nodes, "ok"))
	works("per-node")
	timer("enabled active")
	for _, n := range f.Nodes {
		if got := n.Do("stat -c '%a %U:%G' " + mover.RenewalDirectory()); got != "700 "+mover.RenewalOwner() {
			t.Errorf("%s: %s has %s", n.Name, mover.RenewalDirectory(), got)
		}
		n.Do("systemctl start nnf-dm && nsenter -m -t $(systemctl show --value -p MainPID nnf-dm) setpriv --reuid nnf-dm --regid nnf-dm --clear-groups touch " + mover.RenewalDirectory() + "/x")
		n.Do("rm " + mover.RenewalDirectory() + "/x")
	}
	expect(t, f.DeployJSON("install", append(newer.PackageArguments(), "--identity", "per-node")...), 0, all(f.Nodes, "ok"))
	works("per-node")
	timer("enabled active")
	if path := first.Property("nnf-dm.timer", "FragmentPath"); strings.HasPrefix(path, "/etc/") {
		t.Errorf("%s hides the timer of the package", path)
	}
	expect(t, f.DeployJSON("uninstall"), 0, all(f.Nodes, "ok"))
	gone()
}
