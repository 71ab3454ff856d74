package fleet

import (
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Counts is the number of nodes by state.
type Counts map[State]int

// Count counts results.
func Count(results []Result) Counts {
	c := Counts{}
	for _, r := range results {
		c[r.State]++
	}
	return c
}

// order is the order in which states are printed, and the words for each.
var order = []struct {
	state State
	words string
}{
	{OK, "changed"}, {Differs, "would change"}, {Unchanged, "as wanted already"}, {Failed, "failed"}, {Interrupted, "interrupted, as before"}, {Skipped, "not begun"},
}

// String returns all counts in one line.
func (c Counts) String() string {
	total := 0
	var parts []string
	for _, o := range order {
		if n := c[o.state]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, o.words))
		}
	}
	noun := "nodes"
	if total == 1 {
		noun = "node"
	}
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", total, noun, strings.Join(parts, ", ")), ": ")
}

// most is the number of items of a host list in a line for people, and the number of lines
// of causes.
const most = 20

// Names returns the nodes in one of the states as a host list, cut off after some items.
func Names(results []Result, states ...State) string {
	var names []string
	for _, r := range results {
		if slices.Contains(states, r.State) {
			names = append(names, r.Node)
		}
	}
	return nodeset.Fold(names, most)
}

// Causes returns why nodes are in this state: one line for all nodes with the same cause,
// such as "compute-[03-07]: not reachable".
func Causes(results []Result, state State) (lines []string) {
	var causes []string
	nodes := map[string][]string{}
	for _, r := range results {
		if r.State != state {
			continue
		}
		cause := r.class()
		if nodes[cause] == nil {
			causes = append(causes, cause)
		}
		nodes[cause] = append(nodes[cause], r.Node)
	}
	left := 0
	for i, cause := range causes {
		if i >= most {
			left += len(nodes[cause])
			continue
		}
		line := nodeset.Fold(nodes[cause], most)
		if cause != "" {
			line += ": " + text.Line(cause)
		}
		lines = append(lines, line)
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("%d more nodes, for other causes", left))
	}
	return lines
}

// class is the same for nodes with the same cause.
func (r *Result) class() string {
	if r.Class != "" {
		return r.Class
	}
	return r.Cause
}
