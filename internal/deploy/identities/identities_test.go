package identities

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

var update = flag.Bool("update", false, "write the golden file")

// machine returns a system of rabbits with this many compute nodes each, and external nodes.
// Names have the given length.
func machine(rabbits, computes, external, length int) (s inventory.System) {
	name := func(kind string, n int) string {
		text := fmt.Sprintf("%s-%d", kind, n)
		return text + strings.Repeat("x", max(0, length-len(text)))
	}
	s.Name = "default"
	for r := range rabbits {
		rabbit := dws.StorageNode{Type: dws.TypeRabbit, Name: name("rabbit", r)}
		for c := range computes {
			rabbit.ComputesAccess = append(rabbit.ComputesAccess, dws.ComputeAccess{Name: name("compute", r*computes+c), Index: c})
		}
		s.Spec.StorageNodes = append(s.Spec.StorageNodes, rabbit)
	}
	for e := range external {
		s.Spec.ExternalComputeNodes = append(s.Spec.ExternalComputeNodes, dws.ExternalNode{Name: name("external", e)})
	}
	return s
}

func all(t *testing.T, s inventory.System) []Object {
	t.Helper()
	objects, err := All(s)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// The objects of a system with a rabbit, two compute nodes and an external one.
func TestObjects(t *testing.T) {
	var text bytes.Buffer
	for i, o := range all(t, machine(1, 2, 1, 0)) {
		if i > 0 {
			text.WriteString("---\n")
		}
		y, err := yaml.Marshal(o)
		if err != nil {
			t.Fatal(err)
		}
		text.Write(y)
	}
	const golden = "testdata/system.golden.yaml"
	if *update {
		if err := os.WriteFile(golden, text.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || !bytes.Equal(want, text.Bytes()) {
		t.Errorf("%s differs (%v): check the difference with -update", golden, err)
	}
}

// However large a machine is, no object is larger than 64 KiB, even with the longest names. On 11,136
// nodes, there are 64 ClusterRoleBindings. Every object has its own name, and refers to earlier ones.
func TestScale(t *testing.T) {
	const longest = 63 // characters of the name of a namespace
	for _, tt := range []struct{ rabbits, external, length, cluster int }{{1, 1, longest, 2}, {25, 0, longest, 2}, {40, 0, longest, 4}, {696, 0, longest, 64}, {696, 0, 0, 64}, {2000, 100, longest, 256}} {
		count, total, bytes, largest := map[any]int{}, 0, map[any]int{}, 0
		for _, o := range all(t, machine(tt.rabbits, 16, tt.external, tt.length)) {
			text, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			kind := o["kind"]
			count[kind]++
			bytes[kind], total, largest = max(bytes[kind], len(text)), total+len(text), max(largest, len(text))
		}
		if largest > 64<<10 || count["ClusterRoleBinding"] != tt.cluster {
			t.Errorf("%+v: the largest object has %d bytes; %v objects", tt, largest, count)
		}
		t.Logf("%+v: %v objects, %d KiB, the largest %v bytes", tt, count, total>>10, bytes)
	}

	seen := map[string]bool{}
	key := func(kind, namespace, name any) string { return fmt.Sprint(kind, " ", namespace, "/", name) }
	for _, o := range all(t, machine(3, 16, 3, 0)) {
		m := o["metadata"].(Object)
		k := key(o["kind"], m["namespace"], m["name"])
		if seen[k] {
			t.Errorf("%s exists twice", k)
		}
		seen[k] = true
		if role, ok := o["roleRef"].(Object); ok && !seen[key(role["kind"], nil, role["name"])] {
			t.Errorf("%s refers to %v", k, role)
		}
		subjects, _ := o["subjects"].([]any)
		for _, s := range subjects {
			if a := s.(Object); !seen[key(a["kind"], a["namespace"], a["name"])] {
				t.Errorf("%s refers to %v", k, a)
			}
		}
	}
}

// The roles together grant exactly the verbs that the daemons use, and tokens of the own account.
func TestRoles(t *testing.T) {
	got, want := map[string]int{}, map[string]int{}
	for _, d := range product.Daemons {
		used, _ := api.Permissions(d.Rules)
		for _, p := range used {
			want[d.Name+" "+p.String()]++
		}
		want[d.Name+" create serviceaccounts/token ["+d.Name+"]"]++
	}
	for _, o := range Shared() {
		rules, _ := o["rules"].([]any)
		for _, r := range rules {
			r := r.(Object)
			for _, d := range product.Daemons {
				if !strings.HasPrefix(o["metadata"].(Object)["name"].(string), prefix+d.Name+"-") {
					continue
				}
				for _, verb := range r["verbs"].([]any) {
					resource, sub, _ := strings.Cut(r["resources"].([]any)[0].(string), "/")
					p := api.Permission{Verb: verb.(string), Group: r["apiGroups"].([]any)[0].(string), Resource: resource, Subresource: sub}
					k := d.Name + " " + p.String()
					if names := r["resourceNames"]; names != nil {
						k += fmt.Sprint(" ", names)
					}
					got[k]++
				}
			}
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the roles grant\n%v\nthe daemons use\n%v", got, want)
	}
}

func TestGroups(t *testing.T) {
	nodes := []inventory.Node{{Name: "a", Rabbit: "r"}, {Name: "b", Rabbit: "s"}, {Name: "c", Rabbit: "r"}, {Name: "x"}, {Name: "y"}}
	if got := fmt.Sprint(Groups(nodes)); got != "[{r  [a c]} {s  [b]} { 1-0 [a b c x y]}] <nil>" {
		t.Error(got)
	}
	for _, bad := range [][]inventory.Node{{{Name: "a", Rabbit: "../r"}}, {{Name: "a", Rabbit: "r\n"}}, {{Name: "a", Rabbit: "x"}, {Name: "x"}}} {
		if groups, err := Groups(bad); err == nil {
			t.Errorf("%q: %v", bad, groups)
		}
	}
	if _, err := All(inventory.System{}); err == nil {
		t.Error("a system without nodes is no error")
	}
}

// A node that leaves the system changes its own block only, and one that moves to another rabbit none.
// Every node is in exactly one block.
func TestBlocks(t *testing.T) {
	all, err := inventory.Nodes(machine(100, 16, 0, 0))
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(nodes []inventory.Node) map[string]string {
		groups, err := Groups(nodes)
		if err != nil {
			t.Fatal(err)
		}
		of, n := map[string]string{}, 0
		for _, g := range groups {
			if g.Block != "" {
				of[g.Block] = strings.Join(g.Nodes, " ")
				n += len(g.Nodes)
			}
		}
		if n != len(nodes) {
			t.Errorf("%d of %d nodes are in blocks", n, len(nodes))
		}
		return of
	}
	before := blocks(all)
	if len(before) != 4 {
		t.Errorf("%d blocks", len(before))
	}
	differ := func(after map[string]string) (n int) {
		for name, nodes := range after {
			if before[name] != nodes {
				n++
			}
		}
		return n
	}
	if n := differ(blocks(slices.Delete(slices.Clone(all), 5, 6))); n != 1 {
		t.Errorf("%d blocks change when a node leaves", n)
	}
	moved := slices.Clone(all)
	moved[5].Rabbit = moved[500].Rabbit
	if n := differ(blocks(moved)); n != 0 {
		t.Errorf("%d blocks change when a node moves to another rabbit", n)
	}
}

// The guide lists exactly the permissions in all namespaces, with their reasons.
func TestGuide(t *testing.T) {
	text, err := os.ReadFile("../../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, d := range product.Daemons {
		for _, r := range d.Rules {
			if r.Scope == api.ScopeAll {
				want = append(want, fmt.Sprintf("| `%s` | `%s` | %s | %s |\n", d.Name, r.Resource, strings.Join(strings.Fields(r.Used), ", "), r.Reason))
			}
		}
	}
	_, section, _ := strings.Cut(string(text), "\n## Permissions of one node in all namespaces\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if strings.HasPrefix(line, "| `") {
			got = append(got, line)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/security.md has\n%s\nthe rules\n%s", strings.Join(got, ""), strings.Join(want, ""))
	}
}

// The permissions of an account are those that the bindings grant it.
func TestPermissions(t *testing.T) {
	var system inventory.System
	if err := json.Unmarshal([]byte(`{"spec": {"storageNodes": [{"name": "r", "computesAccess": [{"name": "a"}, {"name": "b"}]}, {"name": "s", "computesAccess": [{"name": "c"}]}],
		"externalComputeNodes": [{"name": "x"}]}}`), &system); err != nil {
		t.Fatal(err)
	}
	objects, err := All(system)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []inventory.Node{{Name: "a", Rabbit: "r"}, {Name: "x"}} {
		for _, d := range product.Daemons {
			want, got := []string{"create serviceaccounts/token " + n.Name}, []string(nil)
			for _, o := range objects {
				ref, _ := o["roleRef"].(Object)
				namespace, _ := o["metadata"].(Object)["namespace"].(string)
				of, _ := o["subjects"].([]any)
				if !slices.ContainsFunc(of, func(s any) bool { return s.(Object)["name"] == d.Name && s.(Object)["namespace"] == n.Name }) {
					continue
				}
				for _, r := range d.Rules {
					if slices.Contains(scopes, r.Scope) && ref["name"] == roleName(d, r.Scope) {
						for _, p := range r.Needs(namespace) {
							want = append(want, p.String()+" "+p.Namespace)
						}
					}
				}
			}
			must, not := Permissions(d, n)
			for _, p := range must {
				got = append(got, p.String()+" "+p.Namespace)
			}
			slices.Sort(want)
			slices.Sort(got)
			if !slices.Equal(got, want) || len(got) < 5 {
				t.Errorf("%s on %s: %q, the objects grant %q", d.Name, n.Name, got, want)
			}
			for _, p := range not {
				if p.Namespace != "" || slices.Contains(must, p) {
					t.Errorf("%s on %s: %v", d.Name, n.Name, p)
				}
			}
			if len(not) == 0 {
				t.Errorf("%s on %s may have every permission in all namespaces", d.Name, n.Name)
			}
		}
	}
}
