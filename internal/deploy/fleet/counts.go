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

// order lists the states in the order in which they are printed, with their texts.
var order = []struct {
	state State
	text  string
}{
	{OK, "changed"}, {Differs, "would change"}, {Unchanged, "unchanged"}, {Failed, "failed"}, {Interrupted, "interrupted before any change"}, {Skipped, "not started"},
}

// String returns all counts on one line.
func (c Counts) String() string {
	total := 0
	var parts []string
	for _, o := range order {
		if n := c[o.state]; n > 0 {
			total += n
			parts = append(parts, fmt.Sprintf("%d %s", n, o.text))
		}
	}
	noun := "nodes"
	if total == 1 {
		noun = "node"
	}
	return strings.TrimSuffix(fmt.Sprintf("%d %s: %s", total, noun, strings.Join(parts, ", ")), ": ")
}

// maxShown is the maximum number of items of a printed host list, and of printed lines with
// causes.
const maxShown = 20

// Names returns the nodes in one of the states as a host list of at most maxShown items.
func Names(results []Result, states ...State) string {
	var names []string
	for _, r := range results {
		if slices.Contains(states, r.State) {
			names = append(names, r.Node)
		}
	}
	return nodeset.Fold(names, maxShown)
}

// Causes returns the causes of the nodes in this state: one line per cause, with all its
// nodes, such as "compute-[03-07]: not reachable".
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
		if i >= maxShown {
			left += len(nodes[cause])
			continue
		}
		line := nodeset.Fold(nodes[cause], maxShown)
		if cause != "" {
			line += ": " + text.Line(cause)
		}
		lines = append(lines, line)
	}
	if left > 0 {
		lines = append(lines, fmt.Sprintf("%d more nodes with other causes", left))
	}
	return lines
}

// class returns the part of the cause that is the same on all nodes.
func (r *Result) class() string {
	if r.Class != "" {
		return r.Class
	}
	return r.Cause
}
