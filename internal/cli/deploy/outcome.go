package deploy

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// failed is the result for an error of a node.
func failed(err error) fleet.Result {
	r := fleet.Result{State: fleet.Failed, Cause: err.Error()}
	if p := (*target.Problem)(nil); errors.As(err, &p) {
		r.Hint = p.Hint
	}
	if e := (*remote.Error)(nil); errors.As(err, &e) {
		r.Hint, r.Class = e.Hint, e.Kind.String()
		if e.Kind == remote.Ended {
			r.State, r.Cause = fleet.Interrupted, "nothing was changed"
		}
	}
	return r
}

// finish shows what became of the nodes, and chooses the exit code.
func (v *call) finish(results []fleet.Result, stopped error, dry bool) error {
	var err error
	switch {
	case v.output == formatJSON:
		err = fleet.JSON(v.Stdout, results)
	case dry:
		err = differences(v.Stdout, results)
	default:
		err = fleet.Write(v.Stdout, results)
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

// failures names the nodes that have failed, those with the same cause together.
func (v *call) failures(results []fleet.Result) {
	for _, line := range fleet.Causes(results, fleet.Failed) {
		v.Code = cli.ExitFailed
		v.Say("error: failed: %s", line)
	}
}

// journals are those of the first nodes; with many the cause mostly is the same.
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
		v.Say("the journals of %d more nodes are in the answer with -o json", more)
	}
}

// notes says each note once, with the nodes that it is about.
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

// differences shows what would change; nodes that would change in the same way
// together, and nodes that fail for the same cause.
func differences(w io.Writer, results []fleet.Result) error {
	var order []string
	same := map[string][]fleet.Result{}
	for _, r := range results {
		change := "as wanted already\n"
		switch {
		case r.Cause != "":
			class := r.Class
			if class == "" {
				class = r.Text()
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
			fmt.Fprintf(&b, "%s: %s: %s\n", names, of[0].State, text.Line(of[0].Text()))
		default:
			fmt.Fprintf(&b, "%s: %s", names, change)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
