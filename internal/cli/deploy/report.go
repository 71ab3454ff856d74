package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// reportSettings has the settings of the commands that only report about nodes.
type reportSettings struct {
	nodes nodesSettings
	limit time.Duration
}

// flags adds the flags of a command that asks clientmountd on the nodes.
func (r *reportSettings) flags(f *pflag.FlagSet, command string, limit time.Duration) {
	r.limitFlag(f, limit)
	r.nodes.reportFlags(f, command)
}

func (r *reportSettings) limitFlag(f *pflag.FlagSet, limit time.Duration) {
	f.DurationVar(&r.limit, "node-timeout", limit, "treat a node that is not finished within `DURATION` as failed")
}

func (r *reportSettings) check() error {
	if r.limit < time.Second {
		return usage.Errorf("--node-timeout must be at least 1s")
	}
	return nil
}

// collect runs ask for all nodes of a command. It returns the results, and the answers of the nodes
// by name. Without results (nil), the command ends with the error. That --failed selects no node is no
// error: the results are empty.
func collect[T any](ctx context.Context, v *call, r *reportSettings, ask func(stop context.Context, w *target.Want) (T, fleet.Result)) (
	results []fleet.Result, answers map[string]T, err error,
) {
	if err := r.check(); err != nil {
		return nil, nil, err
	}
	j, want, err := v.interruptible(ctx, func(ctx context.Context) (*job, target.Want, error) { return v.prepareNodes(ctx, &r.nodes) })
	if errors.Is(err, errNoneFailed) {
		return []fleet.Result{}, nil, nil
	}
	if err != nil {
		return nil, nil, err
	}
	var mu sync.Mutex
	answers = map[string]T{}
	results, err = j.onNodes(ctx, fleet.Options{Parallel: r.nodes.parallel}, true,
		withTimeout(r.limit, func(_, stop context.Context, node string, _ func(string)) fleet.Result {
			w := want
			w.Node = node
			answer, result := ask(stop, &w)
			if result.State == fleet.OK || result.State == fleet.Differs {
				mu.Lock()
				defer mu.Unlock()
				answers[node] = answer
			}
			return result
		}))
	return results, answers, err
}

// noAnswer returns the error for an answer of a command of clientmountd that has no document.
func noAnswer(command string, a *target.Answer) error {
	return fmt.Errorf("clientmountd %s: %s", command, cmp.Or(text.Clip(text.Line(a.Message), 300), "exit code "+strconv.Itoa(a.Code)))
}

// concluded prints the notes and errors of results, and sets the exit code.
func (v *call) concluded(results []fleet.Result) {
	if slices.ContainsFunc(results, func(r fleet.Result) bool { return r.State != fleet.OK }) {
		v.Code = cli.ExitFailed
	}
	v.notes(results)
	v.failures(results)
}

// maxProblems is how many problems or checks of a node are kept.
const maxProblems = 100

// answerNode is the part of a node in a JSON document that all reports have.
type answerNode struct {
	Node  string `json:"node"`
	Cause string `json:"cause,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// reason is a text that nodes have in common, and these nodes.
type reason struct {
	rank       int // the most urgent first
	nodes      []string
	text, hint string // of the first node; what differs between the nodes is left out
	// common and commonHint are the texts without what may differ. Nodes with the same common text
	// have the same reason.
	common, commonHint string
}

// fold adds a node to the reason with the same common text, and returns the reasons.
func fold(reasons []*reason, node string, r reason) []*reason {
	for _, old := range reasons {
		if old.rank == r.rank && old.common == r.common {
			old.nodes = append(old.nodes, node)
			if old.text != r.text {
				old.text = old.common
			}
			if old.hint != r.hint {
				old.hint = old.commonHint
			}
			return reasons
		}
	}
	r.nodes = []string{node}
	return append(reasons, &r)
}

// byUrgency sorts the most urgent reasons first, and those of most nodes before others.
func byUrgency(reasons []*reason) {
	slices.SortStableFunc(reasons, func(a, b *reason) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(len(b.nodes), len(a.nodes)))
	})
}

// names returns the nodes as a host list, with their number.
func (r *reason) names() string {
	if len(r.nodes) == 1 {
		return "1 node " + r.nodes[0]
	}
	return fmt.Sprintf("%d nodes %s", len(r.nodes), hostList(r.nodes))
}

// Parts of a text that differ between nodes with the same problem: ages, durations, processes,
// identifiers and paths.
var (
	individual = regexp.MustCompile(` (for|in|after) (\d+(\.\d+)?(ms|[smhd]))+\b|\s*\((pid|uid) \d+\)`)
	identifier = regexp.MustCompile(`\b(pid|uid) \d+\b|\b[0-9a-fA-F]{8}-[0-9a-fA-F-]{13,}\b|\b[0-9a-f]{12,}\b|[^\s(,;:"']*/[^\s),;:"']*`)
)

// omitted replaces a part of a text that differs between nodes.
const omitted = "…"

// commonText returns a text of a node without what differs between nodes with the same problem. names
// are those of objects that only this node has.
func commonText(s string, names ...string) string {
	slices.SortFunc(names, func(a, b string) int { return cmp.Compare(len(b), len(a)) }) // one may be a part of another
	for _, n := range names {
		if len(n) > 2 {
			s = strings.ReplaceAll(s, n, omitted)
		}
	}
	s = individual.ReplaceAllString(s, "")
	return identifier.ReplaceAllStringFunc(s, func(part string) string {
		if word, _, two := strings.Cut(part, " "); two {
			return word + " " + omitted
		}
		return omitted
	})
}
