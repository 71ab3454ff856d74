package deploy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/screen"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// rollout has the settings of the commands that change nodes.
type rollout struct {
	nodes       nodesSettings
	dryRun      bool
	batch       string
	maxFailures int
	limit       time.Duration
}

func (r *rollout) flags(f *pflag.FlagSet) {
	f.StringVar(&r.batch, "batch", "", "work on `N` nodes, or N% of the nodes, and start the next ones when these are finished")
	f.IntVar(&r.maxFailures, "max-failures", 0, "start no further node after `N` nodes have failed; 0: no limit")
}

func (r *rollout) check() error {
	if _, err := fleet.ParseBatch(r.batch, 1); err != nil {
		return usage.Errorf("--batch: %v", err)
	}
	if r.maxFailures < 0 {
		return usage.Errorf("--max-failures must not be negative")
	}
	return nil
}

// rollOut prepares a job, runs the task for each of its nodes, and prints the results.
func (v *call) rollOut(ctx context.Context, r *rollout, prepare func(context.Context) (*job, target.Want, error),
	task func(ctx, stop context.Context, w *target.Want, step func(string)) fleet.Result) error {
	j, want, err := v.interruptible(ctx, prepare)
	if errors.Is(err, errNoneFailed) {
		return v.finish(nil, nil, r.dryRun)
	}
	if err != nil {
		return err
	}
	batch, err := fleet.ParseBatch(r.batch, len(j.nodes))
	if err != nil {
		return err
	}
	results, err := j.onNodes(ctx, fleet.Options{Parallel: r.nodes.parallel, Batch: batch, MaxFailures: r.maxFailures}, r.dryRun,
		withTimeout(r.limit, func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
			w := want
			w.Node = node
			return task(ctx, stop, &w, step)
		}))
	if results == nil {
		return err
	}
	return v.finish(results, err, r.dryRun)
}

// interruptible runs prepare, which does everything before the first node is contacted. A
// signal stops it.
func (v *call) interruptible(ctx context.Context, prepare func(context.Context) (*job, target.Want, error)) (*job, target.Want, error) {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	j, want, err := prepare(ctx)
	return j, want, cli.Interrupted(ctx, err)
}

// onNodes runs a task for all nodes of the job and shows the progress. The first signal
// stops the nodes that are not being changed yet, the second all nodes; in both cases, the
// error is a *cli.Stopped. The results are valid even if there is an error, but there are
// none if the results file cannot be created.
func (j *job) onNodes(ctx context.Context, o fleet.Options, brief bool, task fleet.Task) ([]fleet.Result, error) {
	var names []string
	for _, n := range j.nodes {
		names = append(names, n.Name)
	}
	stop, halt := context.WithCancelCause(ctx)
	defer halt(nil)
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	shown := newProgress(j.v.Stderr, j.v.Getenv("TERM"), len(names), brief)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case s := <-j.v.Signals:
			shown.Say("interrupted: starting no further node, waiting for nodes that are switching; interrupt again to stop waiting")
			halt(cli.StoppedBy("", s))
		case <-done:
			return
		}
		select {
		case s := <-j.v.Signals:
			leave(cli.StoppedBy("", s))
		case <-done:
		}
	}()
	observer, finished, err := j.record(names, shown)
	if err != nil {
		shown.Close()
		return nil, err
	}
	results := fleet.Run(ctx, stop, names, o, task, observer)
	shown.Close()
	if err := finished(); err != nil {
		return results, err
	}
	if s := (*cli.Stopped)(nil); errors.As(context.Cause(stop), &s) {
		return results, s
	}
	return results, nil
}

// progress shows the progress on many nodes. It must be closed before other output.
type progress interface {
	fleet.Observer
	Say(line string) // may be called concurrently
	Close()
}

// newProgress returns a progress bar if w is a terminal that can draw one. Otherwise, it
// prints a line for each finished node, unless brief is true. With many nodes, these lines are
// about failed nodes and each percent of the nodes.
func newProgress(w io.Writer, termName string, nodes int, brief bool) progress {
	f, ok := screen.Redraws(w, termName)
	if !ok {
		return &lines{Lines: screen.NewLines(w, Name), nodes: nodes, brief: brief, started: time.Now()}
	}
	b := &bar{steps: map[string]string{}, counts: map[string]int{}, started: time.Now()}
	b.state.Store(&barState{nodes: nodes})
	b.Bar = screen.NewBar(f, Name, int64(nodes), screen.BarTexts{Before: b.before, After: b.after})
	return b
}

// maxFailureLines is the maximum number of failed nodes that are printed immediately.
const maxFailureLines = 100

// failureLine returns the line for a failed node, or "" after too many. printed counts them.
func failureLine(r fleet.Result, printed *int) string {
	*printed++
	switch {
	case *printed <= maxFailureLines:
		return resultLine(r)
	case *printed == maxFailureLines+1:
		return "further failures are counted, and listed by cause at the end"
	}
	return ""
}

// bar is one progress bar for all nodes. Failures are printed above it immediately.
type bar struct {
	*screen.Bar
	state   atomic.Pointer[barState]
	steps   map[string]string // by node
	counts  map[string]int    // of the nodes at each step
	printed int               // failures
	started time.Time
}

type barState struct {
	finished, nodes, failed int
	steps                   string // number of nodes at each step
}

func (b *bar) before() string {
	s := b.state.Load()
	return fmt.Sprintf("%d of %d nodes ", s.finished, s.nodes)
}

func (b *bar) after() string {
	s := b.state.Load()
	line := " " + time.Since(b.started).Round(time.Second).String()
	if s.failed > 0 {
		line += fmt.Sprintf(", %d failed", s.failed)
	}
	if s.steps != "" {
		line += ", " + s.steps
	}
	return line
}

func (b *bar) Start(node string) { b.Step(node, "inspect") }

func (b *bar) Step(node, step string) {
	b.leave(node)
	b.steps[node] = step
	b.counts[step]++
	b.update(func(*barState) {})
}

// leave removes the node from its step.
func (b *bar) leave(node string) {
	if step, there := b.steps[node]; there {
		b.counts[step]--
		delete(b.steps, node)
	}
}

func (b *bar) Finish(r fleet.Result) {
	b.leave(r.Node)
	b.update(func(s *barState) {
		s.finished++
		if r.State == fleet.Failed {
			s.failed++
		}
	})
	if r.State == fleet.Failed {
		if line := failureLine(r, &b.printed); line != "" {
			b.Say(line)
		}
	}
}

func (b *bar) update(change func(*barState)) {
	s := *b.state.Load()
	change(&s)
	var parts []string
	for _, step := range []string{"inspect", "token", "upload", "switch", "reconnect", "verify", "wait"} {
		if b.counts[step] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", step, b.counts[step]))
		}
	}
	s.steps = strings.Join(parts, ", ")
	b.state.Store(&s)
	b.Set(int64(s.finished))
}

// lines prints a line for each finished node or, with many nodes, for each failed node and each
// percent of the nodes.
type lines struct {
	*screen.Lines
	nodes                     int
	brief                     bool
	finished, failed, printed int
	started                   time.Time
}

func (l *lines) Start(string)        {}
func (l *lines) Step(string, string) {}
func (l *lines) Close()              {}

func (l *lines) Finish(r fleet.Result) {
	l.finished++
	if l.brief || r.State == fleet.Skipped {
		return // the final line with the counts includes them
	}
	if l.nodes > manyNodes {
		l.many(r)
		return
	}
	l.Say(fmt.Sprintf("[%d/%d] %s", l.finished, l.nodes, resultLine(r)))
}

// many is Finish for one of many nodes.
func (l *lines) many(r fleet.Result) {
	if r.State == fleet.Failed {
		l.failed++
		if line := failureLine(r, &l.printed); line != "" {
			l.Say(line)
		}
	}
	if percent := l.finished * 100 / l.nodes; percent > (l.finished-1)*100/l.nodes {
		l.Say(fmt.Sprintf("[%d/%d] %d %%, %d failed, %s", l.finished, l.nodes, percent, l.failed, time.Since(l.started).Round(time.Second)))
	}
}

// resultLine returns a result on one line.
func resultLine(r fleet.Result) string {
	s := fmt.Sprintf("%s: %s, %s", r.Node, r.State, duration(r))
	if t := details(r); t != "" {
		s += ": " + t
	}
	return text.Line(s)
}
