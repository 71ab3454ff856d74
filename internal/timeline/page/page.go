// Package page writes the timelines of many nodes as one HTML page. The page is self-contained: its
// style and its script are in it, and its content security policy permits nothing else.
//
// The timelines are in the page as JSON, in which every "<" is escaped; the script shows them as
// text, never as HTML. So a compromised node cannot add anything to the page but wrong numbers.
package page

import (
	"crypto/sha256"
	_ "embed" // the parts of the page
	"encoding/base64"
	"encoding/json"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/timeline"
)

//go:embed page.html
var body string

//go:embed page.css
var style string

//go:embed page.js
var script string

// Limits of a page.
const (
	maxDetails = 3_500_000 // bytes of the steps of all nodes
	lanes      = 50        // nodes that the page shows in detail
	maxTexts   = 200       // different paths, and different errors
)

// Group is a set of nodes without a timeline, with the reason.
type Group struct {
	Nodes  string `json:"nodes"` // host list
	Reason string `json:"reason"`
}

// Contents is what a page shows.
type Contents struct {
	Workflow string
	Time     time.Time // when the timelines were collected
	Nodes    []*mountstate.Timeline
	Missing  []Group
}

// data is the JSON in the page. The script has the same names.
type data struct {
	Workflow string   `json:"workflow"`
	Time     string   `json:"time"`
	Phases   []string `json:"phases"`
	Starts   []string `json:"starts"` // of each phase, on the first node
	Kinds    []string `json:"kinds"`
	Keys     []key    `json:"keys"`
	Paths    []string `json:"paths"`
	Errors   []string `json:"errors"`
	Names    []string `json:"names"`
	Nodes    []string `json:"nodes"` // for each name and phase, see encode
	Missing  []Group  `json:"missing"`
	Shown    int      `json:"lanes"`
}

// key is a step, with its statistics in milliseconds.
type key struct {
	Phase  int    `json:"phase"`
	Kind   string `json:"kind"` // "": the whole phase
	Name   string `json:"name"`
	Nodes  int    `json:"nodes"`
	P50    int64  `json:"p50"`
	P95    int64  `json:"p95"`
	Max    int64  `json:"max"`
	Failed int    `json:"failed"`
}

// Write writes the page. It has at most 4 MB: if the steps of all nodes are more, it has the single
// steps only of those nodes that are among the slowest in any step.
func Write(w io.Writer, c *Contents) error {
	d := data{
		Workflow: c.Workflow, Time: c.Time.UTC().Format(time.RFC3339), Phases: timeline.Phases, Kinds: mountstate.Kinds,
		Keys: []key{}, Paths: []string{}, Errors: []string{}, Names: []string{}, Nodes: []string{}, Missing: c.Missing, Shown: lanes,
	}
	if d.Missing == nil {
		d.Missing = []Group{}
	}
	order := timeline.Order(c.Nodes)
	var nodes []timeline.Node
	for _, t := range c.Nodes {
		nodes = append(nodes, timeline.Summarize(t))
		d.Names = append(d.Names, t.Node)
	}
	for _, s := range timeline.Statistics(nodes, order) {
		d.Keys = append(d.Keys, key{
			Phase: slices.Index(timeline.Phases, s.Phase), Kind: s.Kind, Name: s.Name, Nodes: s.Nodes,
			P50: milliseconds(s.P50), P95: milliseconds(s.P95), Max: milliseconds(s.Max), Failed: len(s.Failed),
		})
	}
	e := newEncoder(&d, c.Nodes, order)
	if d.Nodes = e.all(nil); size(d.Nodes) > maxDetails {
		d.Nodes = e.all(slowest(nodes, order))
	}
	encoded, err := json.Marshal(d) // escapes <, > and &, so that the text cannot end the script element
	if err != nil {
		return err
	}
	_, err = io.WriteString(w, strings.NewReplacer(
		"@STYLE@", style, "@STYLE-HASH@", hash(style), "@SCRIPT@", script, "@SCRIPT-HASH@", hash(script), "@DATA@", string(encoded),
	).Replace(body))
	return err
}

// hash returns the hash of an inline style or script for a content security policy.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

func size(list []string) (n int) {
	for _, s := range list {
		n += len(s) + len(`"",`)
	}
	return n
}

func milliseconds(seconds float64) int64 { return int64(seconds*1000 + 0.5) }

// slowest returns the indexes of the nodes that are among the slowest in any step.
func slowest(nodes []timeline.Node, order []timeline.Key) map[int]bool {
	keep := map[int]bool{}
	for _, k := range order {
		var having []int
		for i, n := range nodes {
			if _, has := n.Seconds[k]; has {
				having = append(having, i)
			}
		}
		slices.SortStableFunc(having, func(a, b int) int {
			switch x, y := nodes[a].Seconds[k], nodes[b].Seconds[k]; {
			case x > y:
				return -1
			case x < y:
				return 1
			}
			return 0
		})
		for _, i := range having[:min(len(having), lanes)] {
			keep[i] = true
		}
	}
	return keep
}

// encoder encodes the steps of nodes.
type encoder struct {
	d      *data
	nodes  []*mountstate.Timeline
	keys   map[timeline.Key]int
	paths  map[string]int
	errors map[string]int
	starts []time.Time // of each phase
}

func newEncoder(d *data, nodes []*mountstate.Timeline, order []timeline.Key) *encoder {
	e := &encoder{d: d, nodes: nodes, keys: map[timeline.Key]int{}, paths: map[string]int{}, errors: map[string]int{}, starts: make([]time.Time, len(timeline.Phases))}
	for i, k := range order {
		e.keys[k] = i
	}
	for i, phase := range timeline.Phases {
		for _, t := range nodes {
			if list, started, _ := timeline.Steps(t, phase); len(list) > 0 && (e.starts[i].IsZero() || started.Before(e.starts[i])) {
				e.starts[i] = started
			}
		}
		d.Starts = append(d.Starts, e.starts[i].UTC().Format(time.RFC3339Nano))
	}
	return e
}

// all returns the phases of all nodes. If keep is not nil, it leaves out the single steps of the
// other nodes, and merges those with the same key.
func (e *encoder) all(keep map[int]bool) []string {
	list := make([]string, 0, len(e.nodes)*len(timeline.Phases))
	for i, t := range e.nodes {
		for p := range timeline.Phases {
			list = append(list, e.phase(t, p, keep == nil || keep[i]))
		}
	}
	return list
}

// phase encodes a phase of a node: its start after the first node and its time, then the steps,
// separated by commas. A step has its key, start, time until its end, path, tries, twice the number
// of its error (from 1) plus 1 if it failed, and the time of all tries, separated by dots. Values at
// the end are left out if they are 0. All numbers have the base 36, all times are milliseconds. A
// merged step has only the key and, after three dots more, the time.
func (e *encoder) phase(t *mountstate.Timeline, phase int, detailed bool) string {
	list, started, finished := timeline.Steps(t, timeline.Phases[phase])
	if len(list) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString(number(started.Sub(e.starts[phase]).Milliseconds()) + "." + number(finished.Sub(started).Milliseconds()))
	if !detailed {
		sums := make([]float64, len(e.keys))
		for _, s := range list {
			if k, known := e.keys[timeline.KeyOf(&s)]; known {
				sums[k] += s.Seconds
			}
		}
		for k, sum := range sums {
			if ms := milliseconds(sum); ms > 0 {
				b.WriteString("," + number(int64(k)) + "......" + number(ms))
			}
		}
		return b.String()
	}
	for _, s := range list {
		k, known := e.keys[timeline.KeyOf(&s)]
		if !known {
			continue
		}
		failure := 0
		if s.Error != "" {
			failure = 2 * index(e.errors, &e.d.Errors, s.Error)
		}
		if s.Failed {
			failure++
		}
		length, sum := s.Finished.Sub(s.Started).Milliseconds(), milliseconds(s.Seconds)
		if sum == length || sum == length+1 { // rounded
			sum = 0
		}
		fields := []int64{int64(k), s.Started.Sub(started).Milliseconds(), length, int64(index(e.paths, &e.d.Paths, s.Path)), int64(s.Tries - 1), int64(failure), sum}
		for len(fields) > 1 && fields[len(fields)-1] == 0 {
			fields = fields[:len(fields)-1]
		}
		for i, f := range fields {
			b.WriteByte(",."[min(i, 1)])
			if f != 0 {
				b.WriteString(number(f))
			}
		}
	}
	return b.String()
}

func number(n int64) string { return strconv.FormatInt(max(n, 0), 36) }

// index returns the number of a text in a list, from 1, and adds it if it is new. It returns 0 for
// "", and the last number if the list is full.
func index(known map[string]int, list *[]string, s string) int {
	if s == "" {
		return 0
	}
	i, found := known[s]
	switch {
	case found:
		return i
	case len(*list) > maxTexts:
		return len(*list)
	case len(*list) == maxTexts:
		s = "(too many different texts)"
	}
	*list = append(*list, text.Line(s))
	known[s] = len(*list)
	return len(*list)
}
