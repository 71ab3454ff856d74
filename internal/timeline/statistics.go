package timeline

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// Key identifies a step on all nodes. The Kind and Name of the whole phase are "".
type Key struct {
	Phase string `json:"phase"`
	Kind  string `json:"kind,omitempty"`
	Name  string `json:"name,omitempty"`
}

// Total reports whether the key is that of a whole phase.
func (k Key) Total() bool { return k.Name == "" }

// Node is the time of each step on one node, in seconds. A step that several mounts of the node have
// counts once for each. The time of a phase is that from the start of its first step until the end
// of its last.
type Node struct {
	Name    string
	Seconds map[Key]float64
	Failed  map[Key]bool // the last try of the step failed
}

// Summarize returns the times of a node.
func Summarize(t *mountstate.Timeline) Node {
	n := Node{Name: t.Node, Seconds: map[Key]float64{}, Failed: map[Key]bool{}}
	for _, phase := range Phases {
		list, started, finished := Steps(t, phase)
		if len(list) == 0 {
			continue
		}
		whole := Key{Phase: phase}
		n.Seconds[whole] = finished.Sub(started).Seconds()
		for _, s := range list {
			k := KeyOf(&s)
			n.Seconds[k] += s.Seconds
			n.Failed[k] = n.Failed[k] || s.Failed
			n.Failed[whole] = n.Failed[whole] || s.Failed
		}
	}
	return n
}

// KeyOf returns the key of a step.
func KeyOf(s *mountstate.Step) Key { return Key{Phase: s.Phase, Kind: s.Kind, Name: s.Name} }

// Steps returns the steps of a phase of all lives, in the order of their start, the start of the
// first and the end of the last.
func Steps(t *mountstate.Timeline, phase string) (list []mountstate.Step, started, finished time.Time) {
	var all mountstate.Life
	for _, l := range t.Lives {
		all.Steps = append(all.Steps, l.Steps...)
	}
	return steps(&all, phase)
}

// Statistic is the distribution of the time of a step over the nodes that have it, in seconds.
type Statistic struct {
	Key
	Nodes   int      `json:"nodes"`
	P50     float64  `json:"p50_seconds"`
	P95     float64  `json:"p95_seconds"`
	Max     float64  `json:"max_seconds"`
	Failed  []string `json:"failed,omitempty"`  // nodes on which the last try failed
	Slowest []string `json:"slowest,omitempty"` // nodes at or above P95 that are slower than P50, in the order of their names
}

// DocumentVersion is the version of the layout of Document.
const DocumentVersion = 1

// Document is the output of "nnf-deploy timeline -o json".
type Document struct {
	Version  int            `json:"version"`
	Workflow string         `json:"workflow"`
	Steps    []Statistic    `json:"steps"`
	Nodes    []DocumentNode `json:"nodes"`
}

// DocumentNode is a node of a Document.
type DocumentNode struct {
	Node  string            `json:"node"`
	Cause string            `json:"cause,omitempty"` // why the node has no timeline
	Hint  string            `json:"hint,omitempty"`
	Lives []mountstate.Life `json:"lives"`
}

// Statistics returns the statistics of all phases and steps: first the whole phase, then its steps
// in the order in which the nodes usually run them.
func Statistics(nodes []Node, order []Key) []Statistic {
	var list []Statistic
	for _, k := range order {
		var values []float64
		s := Statistic{Key: k}
		for _, n := range nodes {
			if v, has := n.Seconds[k]; has {
				values = append(values, v)
			}
			if n.Failed[k] {
				s.Failed = append(s.Failed, n.Name)
			}
		}
		if len(values) == 0 {
			continue
		}
		slices.Sort(values)
		s.Nodes, s.P50, s.P95, s.Max = len(values), percentile(values, 0.50), percentile(values, 0.95), values[len(values)-1]
		for _, n := range nodes {
			if v, has := n.Seconds[k]; has && v >= s.P95 && v > s.P50 {
				s.Slowest = append(s.Slowest, n.Name)
			}
		}
		slices.Sort(s.Slowest)
		slices.Sort(s.Failed)
		list = append(list, s)
	}
	return list
}

// percentile returns the smallest value that is not below the share p of all values (nearest rank).
func percentile(sorted []float64, p float64) float64 {
	return sorted[max(int(math.Ceil(p*float64(len(sorted))))-1, 0)]
}

// maxKeys is the maximum number of different steps in statistics and pages. A node decides on the
// names of its steps: those of most nodes are kept.
const maxKeys = 64

// Order returns the phases and steps of nodes in the order of statistics: the mean position of the
// start of the step in its phase. It has at most 64 keys, those of most nodes.
func Order(nodes []*mountstate.Timeline) []Key {
	type place struct {
		key   Key
		sum   float64
		count int
	}
	at := map[Key]*place{}
	for _, t := range nodes {
		for i := range t.Lives {
			for _, phase := range Phases {
				list, started, _ := steps(&t.Lives[i], phase)
				for position, s := range list {
					k := KeyOf(&s)
					if at[k] == nil {
						at[k] = &place{key: k}
					}
					at[k].sum += float64(position) + min(s.Started.Sub(started).Seconds(), 1)*1e-3
					at[k].count++
				}
			}
		}
	}
	var list []*place
	for _, p := range at {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *place) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.key.Phase, b.key.Phase), cmp.Compare(a.key.Name, b.key.Name), cmp.Compare(a.key.Kind, b.key.Kind))
	})
	list = list[:min(len(list), maxKeys)]
	slices.SortStableFunc(list, func(a, b *place) int { return cmp.Compare(a.sum/float64(a.count), b.sum/float64(b.count)) })
	var keys []Key
	for _, phase := range Phases {
		before := len(keys)
		for _, p := range list {
			if p.key.Phase == phase {
				if len(keys) == before {
					keys = append(keys, Key{Phase: phase})
				}
				keys = append(keys, p.key)
			}
		}
	}
	return keys
}
