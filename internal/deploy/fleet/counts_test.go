package fleet

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestCounts(t *testing.T) {
	counted := []Result{{State: OK}, {State: Unchanged}, {State: Failed}, {State: OK}, {State: Skipped}, {State: Interrupted}}
	if got := Count(counted).String(); got != "6 nodes: 2 changed, 1 unchanged, 1 failed, 1 interrupted before any change, 1 not started" {
		t.Error(got)
	}
	if got := Count(counted[:1]).String(); got != "1 node: 1 changed" {
		t.Error(got)
	}
	var many, mixed []Result
	for i := range 30 {
		many = append(many, Result{Node: fmt.Sprint("n", i), State: Failed})
		mixed = append(mixed, Result{Node: strings.Repeat("a", i+1), State: Failed, Cause: fmt.Sprint("cause ", i)})
	}
	if got := Names(many, Failed); got != "n[0-29]" || Names(many, OK) != "" {
		t.Error(got)
	}
	if got := Names(mixed, Failed); !strings.HasSuffix(got, ",aaaaaaaaaaaaaaaaaaaa and 10 more") {
		t.Error(got)
	}
	if got := Causes(mixed, Failed); len(got) != maxShown+1 || got[0] != "a: cause 0" || got[maxShown] != "10 more nodes with other causes" {
		t.Errorf("%q", got)
	}
}

// Nodes with the same class are on one line, even if their causes differ.
func TestCauses(t *testing.T) {
	got := Causes([]Result{
		{Node: "compute-03", State: Failed, Cause: "not reachable: ssh: connect to host compute-03", Class: "not reachable"},
		{Node: "compute-04", State: OK},
		{Node: "compute-05", State: Failed, Cause: "it is full\x1b"},
		{Node: "compute-04", State: Failed, Cause: "not reachable: ssh: connect to host compute-04", Class: "not reachable"},
		{Node: "compute-06", State: Failed},
	}, Failed)
	if want := []string{"compute-[03-04]: not reachable", `compute-05: it is full\x1b`, "compute-06"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
