package deploy

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/table"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/timeline"
	"github.com/compute-daemons/compute-daemons/internal/timeline/page"
)

type timelineSettings struct {
	report   reportSettings
	workflow string
	html     string
}

var timelineCommand = &command{
	Name: "timeline", Args: "[NODE...]", Short: "show how long each step of the mounts of a workflow took on the nodes",
	Long: `Without NODE, the command asks all compute nodes of the system. NODE may be a host
list such as compute-[01-20,30]. It reads the records and the history of clientmountd,
which works even if the daemon or the API server is down.

The table has the time of each step: P50 is the median of the nodes, 95% of the nodes
needed at most P95. SLOWEST lists the nodes at or above P95 that are slower than the
median. The first row of a phase is the time from its first step until the end of its
last. With --html, the command also writes one HTML page with charts, which needs no
network. With -o trace, it writes trace events: open them in https://ui.perfetto.dev.

The exit code is 1 if a node does not answer. A node without a record of the workflow is
not an error.`,
	Examples: []cli.Example{
		{Comment: "Find out which step delayed a job, and on which nodes:", Lines: "nnf-deploy timeline --workflow my-job --html my-job.html"},
	},
	Formats: []string{formatTrace}, Most: -1, Flags: timelineFlags, Run: runTimeline,
}

func timelineFlags(f *pflag.FlagSet, v *call) {
	c := &v.timeline
	f.StringVar(&c.workflow, "workflow", "", "show the mounts of the workflow `NAME`")
	f.StringVar(&c.html, "html", "", "also write a page with charts to `FILE`")
	c.report.flags(f, "timeline", time.Minute)
}

// noRecord is the note about nodes that have never mounted for the workflow.
const noRecord = "no record of this workflow"

func runTimeline(ctx context.Context, v *call) error {
	c := &v.timeline
	switch {
	case c.workflow == "":
		return usage.Errorf("--workflow NAME is required")
	case !text.Only(c.workflow, "-.") || len(c.workflow) > nodeset.MaxName:
		return usage.Errorf("--workflow %.80q is not a valid name of a workflow", c.workflow)
	}
	if err := errors.Join(cli.CheckFile("html", c.html), checkPage(c.html)); err != nil { // before the nodes are asked
		return err
	}
	results, documents, err := collect(ctx, v, &c.report, func(stop context.Context, w *target.Want) (*mountstate.Timeline, fleet.Result) {
		answer, err := target.Ask(stop, c.report.nodes.shell(), w.Node, "timeline", "--workflow", c.workflow, "-o", "json")
		if err != nil {
			return nil, failed(err)
		}
		doc, err := timelineOf(answer, w.Node, c.workflow)
		switch {
		case err != nil:
			return nil, failed(err)
		case len(doc.Lives) == 0:
			return nil, fleet.Result{State: fleet.OK, Notes: []string{noRecord}}
		}
		return doc, fleet.Result{State: fleet.OK}
	})
	if len(results) == 0 {
		return err
	}
	return v.showTimeline(results, documents, err)
}

// timelineOf returns the timeline of a node from its answer. Nothing in it is trusted: the name of
// the node is ours, and everything is bounded.
func timelineOf(a *target.Answer, node, workflow string) (*mountstate.Timeline, error) {
	if a.Code != 0 {
		return nil, noAnswer("timeline", a)
	}
	doc, err := mountstate.ParseTimeline(a.Output)
	if err != nil {
		return nil, fmt.Errorf("the output of clientmountd timeline: %w", err)
	}
	doc.Node = node
	timeline.Select(doc, workflow)
	timeline.Latest(doc)
	timeline.Bound(doc)
	return doc, nil
}

// showTimeline prints the timelines, writes the page, and sets the exit code.
func (v *call) showTimeline(results []fleet.Result, documents map[string]*mountstate.Timeline, stopped error) error {
	c := &v.timeline
	var nodes []*mountstate.Timeline
	for _, r := range results {
		if doc := documents[r.Node]; doc != nil {
			nodes = append(nodes, doc)
		}
	}
	var err error
	switch {
	case v.output == formatJSON:
		err = timelineJSON(v.Stdout, c.workflow, results, documents, statistics(nodes))
	case v.output == formatTrace:
		err = timeline.Trace(v.Stdout, nodes)
	case len(nodes) > 0:
		if _, err = fmt.Fprintf(v.Stdout, "Workflow %s: %d of %d nodes have a timeline.\n\n", c.workflow, len(nodes), len(results)); err == nil {
			err = timelineTable(v.Stdout, statistics(nodes))
		}
	}
	if c.html != "" && err == nil {
		err = writePage(c.html, &page.Contents{Workflow: c.workflow, Time: time.Now(), Nodes: nodes, Missing: missing(results)})
	}
	v.concluded(results)
	switch {
	case stopped != nil:
		return stopped
	case err == nil && len(nodes) == 0:
		return hint.Add(fmt.Errorf("no node has a timeline of the workflow %s", c.workflow),
			"check the name with kubectl get workflows; nodes keep a bounded history, until they restart")
	}
	return err
}

func statistics(nodes []*mountstate.Timeline) []timeline.Statistic {
	var list []timeline.Node
	for _, t := range nodes {
		list = append(list, timeline.Summarize(t))
	}
	return timeline.Statistics(list, timeline.Order(nodes))
}

func timelineTable(w io.Writer, list []timeline.Statistic) error {
	const most = 4 // items of a host list
	var rows [][]string
	time := func(seconds float64) string { return timeline.Duration(timeline.Seconds(seconds)) }
	for _, s := range list {
		name := s.Name
		if s.Total() {
			name = "(whole phase)"
		}
		rows = append(rows, []string{
			s.Phase, name, cmp.Or(s.Kind, "-"), strconv.Itoa(s.Nodes), time(s.P50), time(s.P95), time(s.Max),
			cmp.Or(nodeset.Fold(s.Failed, most), "-"), cmp.Or(nodeset.Fold(s.Slowest, most), "-"),
		})
	}
	return table.Write(w, []string{"PHASE", "STEP", "KIND", "NODES", "P50", "P95", "MAX", "FAILED", "SLOWEST"}, rows)
}

// missing groups the nodes without a timeline by their reason.
func missing(results []fleet.Result) (groups []page.Group) {
	const most = 20 // items of a host list
	var reasons []string
	names := map[string][]string{}
	for _, r := range results {
		reason := cmp.Or(r.Class, r.Cause)
		if reason == "" && len(r.Notes) > 0 {
			reason = r.Notes[0]
		}
		if reason == "" {
			continue
		}
		if names[reason] == nil {
			reasons = append(reasons, reason)
		}
		names[reason] = append(names[reason], r.Node)
	}
	for _, reason := range reasons[:min(len(reasons), 100)] {
		groups = append(groups, page.Group{Nodes: nodeset.Fold(names[reason], most), Reason: text.Clip(text.Line(reason), 300)})
	}
	return groups
}

// checkPage returns an error if path cannot be replaced with a page: root would also replace a device
// such as /dev/stdout.
func checkPage(path string) error {
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("--html: %s is not a regular file", text.Line(path))
	}
	return nil
}

// writePage writes the page to path: to a temporary file first, so that the file is never half a page.
func writePage(path string, c *page.Contents) error {
	if err := checkPage(path); err != nil {
		return err
	}
	temporary := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
	f, err := os.OpenFile(temporary, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fmt.Errorf("--html: %w", err)
	}
	if err = errors.Join(page.Write(f, c), f.Close()); err == nil {
		err = os.Rename(temporary, path)
	}
	if err != nil {
		os.Remove(temporary)
		return fmt.Errorf("--html: %w", err)
	}
	return nil
}

func timelineJSON(w io.Writer, workflow string, results []fleet.Result, documents map[string]*mountstate.Timeline, list []timeline.Statistic) error {
	doc := timeline.Document{Version: timeline.DocumentVersion, Workflow: workflow, Steps: append([]timeline.Statistic{}, list...), Nodes: []timeline.DocumentNode{}}
	for _, r := range results {
		n := timeline.DocumentNode{Node: r.Node, Cause: r.Cause, Hint: r.Hint, Lives: []mountstate.Life{}}
		if t := documents[r.Node]; t != nil {
			n.Lives = t.Lives
		}
		doc.Nodes = append(doc.Nodes, n)
	}
	return text.JSON(w, doc)
}
