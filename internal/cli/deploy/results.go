package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// failed returns the result for an error of a node.
func failed(err error) fleet.Result {
	r := fleet.Result{State: fleet.Failed, Cause: err.Error()}
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
	var order []string
	same := map[string][]fleet.Result{}
	for _, r := range results {
		change := "no changes\n"
		switch {
		case r.Cause != "":
			class := r.Class
			if class == "" {
				class = details(r)
			}
			change = string(r.State) + ": " + text.Line(class) + "\n"
		case len(r.Changes) > 0:
			change = ""
			for _, c := range r.Changes {
				change += "\n  " + text.Line(c)
			}
			change += "\n"
		}
		if same[change] == nil {
			order = append(order, change)
		}
		same[change] = append(same[change], r)
	}
	var b strings.Builder
	for _, change := range order {
		of := same[change]
		names := fleet.Names(of, of[0].State)
		switch {
		case strings.HasPrefix(change, "\n"):
			fmt.Fprintf(&b, "%s:%s", names, change)
		case len(of) == 1 && of[0].Cause != "":
			fmt.Fprintf(&b, "%s: %s: %s\n", names, of[0].State, text.Line(details(of[0])))
		default:
			fmt.Fprintf(&b, "%s: %s", names, change)
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

// resultsTable prints results as a table.
func resultsTable(w io.Writer, results []fleet.Result) error {
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{r.Node, string(r.State), duration(r), details(r)})
	}
	return table.Write(w, []string{"NODE", "RESULT", "TIME", "DETAILS"}, rows)
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
func resultsJSON(w io.Writer, results []fleet.Result) error {
	d := resultsDocument{Counts: fleet.Count(results), Nodes: []resultNode{}}
	for _, r := range results {
		changes := r.Changes
		if changes == nil {
			changes = []string{}
		}
		d.Nodes = append(d.Nodes, resultNode{r.Node, r.State, seconds(r), r.Cause, r.Hint, changes, r.Notes, r.Status, r.Journal})
	}
	return text.JSON(w, d)
}

// seconds returns the time that a node took, rounded to milliseconds.
func seconds(r fleet.Result) float64 { return math.Round(r.Time.Seconds()*1000) / 1000 }
