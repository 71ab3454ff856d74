package fleet

import (
	"fmt"
	"strings"
)

// Counts is how many nodes are in which state.
type Counts map[State]int

// Count counts results.
func Count(results []Result) Counts {
	c := Counts{}
	for _, r := range results {
		c[r.State]++
	}
	return c
}

// order in which states are told, and what is said of nodes of each.
var order = []struct {
	state State
	words string
}{
	{OK, "changed"}, {Differs, "would change"}, {Unchanged, "as wanted already"}, {Failed, "failed"}, {Interrupted, "interrupted, as before"}, {Skipped, "not begun"},
}

// String is all of it in one line.
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

// Names are the nodes in one of the states, not more than the first twenty.
func Names(results []Result, states ...State) string {
	var names []string
	more := 0
	for _, r := range results {
		for _, s := range states {
			if r.State != s {
				continue
			}
			if len(names) == 20 {
				more++
			} else {
				names = append(names, r.Node)
			}
		}
	}
	text := strings.Join(names, " ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}
