package inventory

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

func system(rabbits map[string][]string, external ...string) System {
	var s System
	s.Name = "default"
	for _, r := range slices.Sorted(maps.Keys(rabbits)) {
		n := dws.StorageNode{Type: dws.TypeRabbit, Name: r}
		for i, c := range rabbits[r] {
			n.ComputesAccess = append(n.ComputesAccess, dws.ComputeAccess{Name: c, Index: i})
		}
		s.Spec.StorageNodes = append(s.Spec.StorageNodes, n)
	}
	for _, c := range external {
		s.Spec.ExternalComputeNodes = append(s.Spec.ExternalComputeNodes, dws.ExternalNode{Name: c})
	}
	return s
}

func TestNodes(t *testing.T) {
	got, err := Nodes(system(map[string][]string{"r1": {"c2", "c1"}, "r2": {"c3", "c2"}}, "login", "c1"))
	want := []Node{{"c2", "r1"}, {"c1", "r1"}, {"c3", "r2"}, {"login", ""}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for _, tt := range []struct {
		s    System
		want string
	}{
		{system(nil), "lists no compute nodes"},
		{system(map[string][]string{"r": nil}), "lists no compute nodes"},
		{system(map[string][]string{"r": {"-oProxyCommand=id"}}, "ok"), `"-oProxyCommand=id" is not a valid node name`},
		{system(nil, "a b", "$(id)", "ok"), "and 1 more invalid names"},
	} {
		if got, err := Nodes(tt.s); err == nil || !strings.Contains(err.Error(), tt.want) || got != nil {
			t.Errorf("want %q: %v %v", tt.want, got, err)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, good := range []string{"c1", "0", "compute-01", "c1.example.org", strings.Repeat("a", maxName)} {
		if err := CheckName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{"", "-c1", "c1-", "C1", ".c1", "c1.", "c..1", "c1.-x", "c_1", "c 1", "c1\n", "c1\nc2", "user@c1", "c1:22", "c1;id", "$(id)", "`id`", "c1/x", "..", "ü", "\x00", "[::1]", "::1", strings.Repeat("a", maxName+1)} {
		if CheckName(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if err := CheckName("C1"); err == nil || !strings.Contains(err.Error(), "lower case") {
		t.Errorf("%v", err)
	}
}

func TestSelect(t *testing.T) {
	var all []Node
	for _, n := range []string{"compute-01", "compute-02", "compute-03", "login-1", "login-2", "login-3", "login-4"} {
		all = append(all, Node{Name: n})
	}
	for _, tt := range []struct{ names, want, err string }{
		{"", "compute-01 compute-02 compute-03 login-1 login-2 login-3 login-4", ""},
		{"login-1 compute-02 login-1", "compute-02 login-1", ""},
		{"compute-2", "", `not a compute node of this system: "compute-2", did you mean "compute-0`},
		{"x y x compute-01", "", `"x,y"; its nodes are compute-[01-03],login-[1-4]`},
		{"-v", "", `"-v"`},
		{"login-[2-3] compute-[02,03]", "compute-02 compute-03 login-2 login-3", ""},
		{"compute-[01-02],login-4", "compute-01 compute-02 login-4", ""},
		{"compute-[02-09]", "", `not a compute node of this system: "compute-[04-09]"`},
		{"compute-[1-2]", "", `not a compute node of this system: "compute-[1-2]"`},
		{"compute-[1-999999999]", "", "more than 65536 nodes"},
		{"compute-[01", "", "[ without ]"},
	} {
		got, err := Select(all, strings.Fields(tt.names))
		var names []string
		for _, n := range got {
			names = append(names, n.Name)
		}
		if strings.Join(names, " ") != tt.want || (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q: %q %v", tt.names, names, err)
		}
	}
}
