package deploy

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

type healthSettings struct {
	report    reportSettings
	onlyDrain bool
}

var healthCommand = &command{
	Name: "health", Args: "[NODE...]", Short: "show the nodes whose storage is not fine, by reason",
	Long: `Without NODE, the command asks all compute nodes of the system. NODE may be a host
list such as compute-[01-20,30]. It runs clientmountd health on the nodes, which works
even if the daemon or the API server is down.

Each line has the nodes with the same most urgent problem, and what they need: drain
(no job can use the storage until an administrator acts) or wait (clientmountd
recovers without help). Parts that differ between the nodes, such as paths, process
IDs and ages, are left out; -o json has all problems of each node.

The exit code is 0 if the storage of every node is fine, and 1 otherwise, also if a
node does not answer.`,
	Examples: []cli.Example{
		{Comment: "List the nodes that need a drain:", Lines: `nnf-deploy health --drain-only -o json | jq -r '.nodes[] | select(.action == "drain") | .node'`},
	},
	Most: -1, Flags: healthFlags, Run: runHealth,
}

func healthFlags(f *pflag.FlagSet, v *call) {
	f.BoolVar(&v.health.onlyDrain, "drain-only", false, "report only problems that need a drain of the node")
	v.health.report.flags(f, "health", time.Minute)
}

func runHealth(ctx context.Context, v *call) error {
	c := &v.health
	arguments := []string{"health", "-o", "json"}
	if c.onlyDrain {
		arguments = append(arguments, "--drain-only")
	}
	results, documents, err := collect(ctx, v, &c.report, func(stop context.Context, w *target.Want) (*mountstate.Health, fleet.Result) {
		answer, err := target.Ask(stop, c.report.nodes.shell(), w.Node, arguments...)
		if err != nil {
			return nil, failed(err)
		}
		doc, err := healthOf(answer)
		switch {
		case err != nil:
			return nil, failed(err)
		case doc.Verdict != mountstate.VerdictOK:
			return doc, fleet.Result{State: fleet.Differs}
		}
		return doc, fleet.Result{State: fleet.OK}
	})
	if results == nil {
		return err
	}
	reasons := healthReasons(results, documents)
	var failure error
	if v.output == formatJSON {
		failure = healthJSON(v.Stdout, results, documents, reasons)
	} else {
		failure = healthLines(v.Stdout, reasons)
	}
	v.concluded(results)
	if v.output == formatText && len(results) > 0 {
		v.Say("%d of %d nodes are fine", fleet.Count(results)[fleet.OK], len(results))
	}
	return cmp.Or(err, failure)
}

// healthOf returns the verdict of a node from its answer. Nothing in it is trusted.
func healthOf(a *target.Answer) (*mountstate.Health, error) {
	if len(a.Output) == 0 {
		return nil, noAnswer("health", a)
	}
	doc, err := mountstate.ParseHealth(a.Output)
	if err != nil {
		return nil, fmt.Errorf("the output of clientmountd health: %w", err)
	}
	doc.Line, doc.Problems = text.Clip(text.Line(doc.Line), 300), doc.Problems[:min(len(doc.Problems), maxProblems)]
	for i := range doc.Problems {
		p := &doc.Problems[i]
		for _, s := range []*string{&p.Text, &p.Path, &p.ClientMount, &p.Workflow} {
			*s = text.Clip(text.Line(*s), 500)
		}
	}
	switch {
	case doc.Verdict == mountstate.VerdictUnknown:
		return nil, fmt.Errorf("the state of the node cannot be read: %s", text.Clip(text.Line(doc.Error), 300))
	case doc.Verdict == mountstate.VerdictOK:
	case doc.Verdict == mountstate.VerdictProblem && len(doc.Problems) > 0 && (doc.Action == mountstate.ActionDrain || doc.Action == mountstate.ActionWait):
	default:
		return nil, fmt.Errorf("the output of clientmountd health: invalid verdict %.40q", string(doc.Verdict))
	}
	return doc, nil
}

// healthReasons groups the nodes by their most urgent problem.
func healthReasons(results []fleet.Result, documents map[string]*mountstate.Health) (reasons []*reason) {
	for _, r := range results {
		doc := documents[r.Node]
		if doc == nil || doc.Verdict != mountstate.VerdictProblem {
			continue
		}
		p := doc.Problems[0]
		one := reason{rank: 1, text: p.Text, hint: string(doc.Action), common: commonText(p.Text, r.Node, p.Path, p.ClientMount, p.Workflow)}
		if doc.Action == mountstate.ActionDrain {
			one.rank = 0
		}
		reasons = fold(reasons, r.Node, one)
	}
	byUrgency(reasons)
	return reasons
}

func healthLines(w io.Writer, reasons []*reason) error {
	for _, r := range reasons {
		if _, err := fmt.Fprintf(w, "%s: %s (%s)\n", r.names(), r.text, r.hint); err != nil {
			return err
		}
	}
	return nil
}

type healthDocument struct {
	Version int            `json:"version"`
	Reasons []healthReason `json:"reasons"`
	Nodes   []healthNode   `json:"nodes"`
}

type healthReason struct {
	Action string   `json:"action"`
	Text   string   `json:"text"`
	Nodes  []string `json:"nodes"`
}

type healthNode struct {
	answerNode
	Verdict  mountstate.Verdict   `json:"verdict"`
	Action   mountstate.Action    `json:"action,omitempty"`
	Line     string               `json:"line,omitempty"`
	Problems []mountstate.Problem `json:"problems"`
}

func healthJSON(w io.Writer, results []fleet.Result, documents map[string]*mountstate.Health, reasons []*reason) error {
	doc := healthDocument{Version: 1, Reasons: []healthReason{}, Nodes: []healthNode{}}
	for _, r := range reasons {
		doc.Reasons = append(doc.Reasons, healthReason{r.hint, r.text, r.nodes})
	}
	for _, r := range results {
		n := healthNode{answerNode: answerNode{r.Node, r.Cause, r.Hint}, Verdict: mountstate.VerdictUnknown, Problems: []mountstate.Problem{}}
		if h := documents[r.Node]; h != nil {
			n.Verdict, n.Action, n.Line = h.Verdict, h.Action, h.Line
			n.Problems = append(n.Problems, h.Problems...)
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	return text.JSON(w, doc)
}
