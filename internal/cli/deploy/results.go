package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// failed returns the result for an error of a node.
func failed(err error) fleet.Result {
	r := fleet.Result{State: fleet.Failed, Cause: err.Error(), Hint: hint.Of(err)}
	if p := (*target.Problem)(nil); errors.As(err, &p) {
		r.Hint = p.Hint
	}
	if e := (*remote.Error)(nil); errors.As(err, &e) {
		r.Hint, r.Class = e.Hint, e.Kind.String()
		if e.Kind == remote.Interrupted {
			r.State, r.Cause = fleet.Interrupted, "nothing was changed"
		}
	}
	return r
}

// finish prints the results and sets the exit code.
func (v *call) finish(results []fleet.Result, stopped error, dry bool) error {
	var err error
	switch {
	case v.output == formatJSON:
		err = resultsJSON(v.Stdout, results)
	case dry:
		err = differences(v.Stdout, results)
	default:
		err = resultsTable(v.Stdout, results)
	}
	v.notes(results)
	v.journals(results)
	v.Say("%s", fleet.Count(results))
	v.failures(results)
	if slices.ContainsFunc(results, func(r fleet.Result) bool { return r.State == fleet.Skipped || r.State == fleet.Interrupted }) {
		v.Code = cli.ExitFailed
	}
	if stopped != nil {
		return stopped
	}
	return err
}

// failures prints the failed nodes, one line per cause.
func (v *call) failures(results []fleet.Result) {
	for _, line := range fleet.Causes(results, fleet.Failed) {
		v.Code = cli.ExitFailed
		v.Say("error: failed: %s", line)
	}
}

// journals prints the journals of the first nodes, because the cause is usually the same.
func (v *call) journals(results []fleet.Result) {
	const most = 3
	shown, more := 0, 0
	for _, r := range results {
		switch {
		case len(r.Journal) == 0:
			continue
		case shown == most:
			more++
			continue
		}
		shown++
		for _, line := range r.Journal {
			v.Say("%s: journal: %s", r.Node, text.Line(line))
		}
	}
	if more > 0 {
		v.Say("-o json also shows the journals of %d more nodes", more)
	}
}

// notes prints each note once, with its nodes.
func (v *call) notes(results []fleet.Result) {
	var texts []string
	about := map[string][]fleet.Result{}
	for _, r := range results {
		for _, n := range r.Notes {
			if about[n] == nil {
				texts = append(texts, n)
			}
			about[n] = append(about[n], fleet.Result{Node: r.Node})
		}
	}
	for _, n := range texts {
		v.Say("note: %s: %s", fleet.Names(about[n], ""), text.Line(n))
	}
}

// differences prints what a dry run would change. It groups nodes with the same changes, and
// nodes with the same error.
func differences(w io.Writer, results []fleet.Result) error {
	change := func(r fleet.Result) string {
		switch {
		case r.Cause != "":
			return string(r.State) + ": " + text.Line(cmp.Or(r.Class, details(r))) + "\n"
		case len(r.Changes) == 0:
			return "no changes\n"
		}
		list := ""
		for _, c := range r.Changes {
			list += "\n  " + text.Line(c)
		}
		return list + "\n"
	}
	var b strings.Builder
	for _, same := range grouped(results, change) {
		names, what := fleet.Names(same, same[0].State), change(same[0])
		switch {
		case strings.HasPrefix(what, "\n"):
			fmt.Fprintf(&b, "%s:%s", names, what)
		case len(same) == 1 && same[0].Cause != "":
			fmt.Fprintf(&b, "%s: %s: %s\n", names, same[0].State, text.Line(details(same[0])))
		default:
			fmt.Fprintf(&b, "%s: %s", names, what)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// apply applies a plan, unless it is empty or this is a dry run.
func apply(ctx, stop context.Context, ssh remote.Shell, node string, plan *target.Plan, dry bool, step func(string)) fleet.Result {
	r := fleet.Result{Notes: plan.Notes, State: fleet.Unchanged}
	for _, c := range plan.Changes {
		r.Changes = append(r.Changes, c.String())
	}
	switch {
	case plan.Empty():
		return r
	case dry:
		r.State = fleet.Differs
		return r
	}
	outcome, err := target.Apply(ctx, stop, ssh, node, plan, step)
	if outcome != nil {
		r.Notes = append(r.Notes, outcome.Notes...)
		r.Status, r.Journal = outcome.Status, outcome.Journal
	}
	if err != nil {
		f := failed(err)
		r.State, r.Cause, r.Hint = f.State, f.Cause, f.Hint
		return r
	}
	r.State = fleet.OK
	return r
}

// withTimeout returns a task that fails if it does not finish within limit.
func withTimeout(limit time.Duration, task fleet.Task) fleet.Task {
	return func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
		late := fmt.Errorf("it did not finish within %v (--node-timeout)", limit)
		ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
		defer cancel()
		stop, halt := context.WithTimeoutCause(stop, limit, late)
		defer halt()
		r := task(ctx, stop, node, step)
		// The two time limits end one after the other.
		if r.State == fleet.Interrupted && (context.Cause(ctx) == late || context.Cause(stop) == late) {
			r.State, r.Cause, r.Hint = fleet.Failed, late.Error(), "check whether the node is overloaded, or run the command again"
		}
		return r
	}
}

// manyNodes is the number of nodes up to which a table has a row, and the progress a line, for each
// node. With more nodes, a row is for all nodes that have the same cells.
const manyNodes = 100

// grouped returns the elements with the same key together, in the order of the first ones.
func grouped[T any](list []T, key func(T) string) (groups [][]T) {
	at := map[string]int{}
	for _, one := range list {
		k := key(one)
		i, known := at[k]
		if !known {
			i, at[k] = len(groups), len(groups)
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], one)
	}
	return groups
}

// maxRows is the maximum number of rows of a table of many nodes.
const maxRows = 100

// writeRows prints the rows of a table of many nodes. Each starts with the number of nodes and ends
// with their host list.
func writeRows(w io.Writer, head []string, rows [][]string) error {
	head = slices.Concat([]string{"COUNT"}, head, []string{"NODES"})
	if left := len(rows) - maxRows; left > 0 {
		rest := slices.Repeat([]string{"-"}, len(head))
		rest[0], rest[len(head)-1] = "...", fmt.Sprintf("%d more rows: -o json shows all nodes", left)
		rows = append(rows[:maxRows:maxRows], rest)
	}
	return table.Write(w, head, rows)
}

// hostList returns the names of nodes as a host list.
func hostList(names []string) string {
	const most = 20 // items
	return nodeset.Fold(names, most)
}

// resultsTable prints results as a table.
func resultsTable(w io.Writer, results []fleet.Result) error {
	var rows [][]string
	if len(results) <= manyNodes {
		for _, r := range results {
			rows = append(rows, []string{r.Node, string(r.State), duration(r), details(r)})
		}
		return table.Write(w, []string{"NODE", "RESULT", "TIME", "DETAILS"}, rows)
	}
	for _, same := range grouped(results, func(r fleet.Result) string { return string(r.State) + "\x00" + cmp.Or(r.Class, details(r)) }) {
		first := same[0]
		what := details(first)
		if len(same) > 1 {
			what = cmp.Or(first.Class, what)
		}
		byTime := func(a, b fleet.Result) int { return cmp.Compare(a.Time, b.Time) }
		took := duration(slices.MinFunc(same, byTime))
		if most := duration(slices.MaxFunc(same, byTime)); most != took {
			took += ".." + most
		}
		rows = append(rows, []string{strconv.Itoa(len(same)), string(first.State), took, what, fleet.Names(same, first.State)})
	}
	return writeRows(w, []string{"RESULT", "TIME", "DETAILS"}, rows)
}

// details describes a result, without its state.
func details(r fleet.Result) string {
	switch {
	case r.Cause != "" && r.Hint != "":
		return r.Cause + " (" + r.Hint + ")"
	case r.Cause != "":
		return r.Cause
	case len(r.Changes) <= 2:
		return strings.Join(r.Changes, ", ")
	}
	return fmt.Sprintf("%d changes", len(r.Changes))
}

func duration(r fleet.Result) string {
	if r.State == fleet.Skipped {
		return "-"
	}
	return fmt.Sprintf("%.1fs", r.Time.Round(100*time.Millisecond).Seconds())
}

// resultsDocument is the output of install and uninstall with -o json.
type resultsDocument struct {
	Counts fleet.Counts `json:"counts"`
	Nodes  []resultNode `json:"nodes"`
}

type resultNode struct {
	Node    string      `json:"node"`
	Result  fleet.State `json:"result"`
	Seconds float64     `json:"seconds"`
	Cause   string      `json:"cause,omitempty"`
	Hint    string      `json:"hint,omitempty"`
	Changes []string    `json:"changes"`
	Notes   []string    `json:"notes,omitempty"`
	Daemons []string    `json:"daemons_say,omitempty"`
	Journal []string    `json:"journal,omitempty"`
}

// resultsJSON prints results as a JSON document.
func resultsJSON(w io.Writer, results []fleet.Result) error { return text.JSON(w, documentOf(results)) }

// documentOf returns the document for results.
func documentOf(results []fleet.Result) resultsDocument {
	d := resultsDocument{Counts: fleet.Count(results), Nodes: []resultNode{}}
	for _, r := range results {
		changes := r.Changes
		if changes == nil {
			changes = []string{}
		}
		d.Nodes = append(d.Nodes, resultNode{r.Node, r.State, seconds(r), r.Cause, r.Hint, changes, r.Notes, r.Status, r.Journal})
	}
	return d
}

// seconds returns the time that a node took, rounded to milliseconds.
func seconds(r fleet.Result) float64 { return math.Round(r.Time.Seconds()*1000) / 1000 }
