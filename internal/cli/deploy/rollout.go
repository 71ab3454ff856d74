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

// rollout has the settings of commands that change nodes.
type rollout struct {
	nodes       nodesSettings
	dryRun      bool
	batch       string
	maxFailures int
	limit       time.Duration
}

func (r *rollout) flags(f *pflag.FlagSet) {
	f.StringVar(&r.batch, "batch", "", "work on `N` nodes, or N% of them, and start the next when they are finished")
	f.IntVar(&r.maxFailures, "max-failures", 0, "start no further node after `N` have failed; 0: no limit")
}

func (r *rollout) check() error {
	if _, err := fleet.ParseBatch(r.batch, 1); err != nil {
		return usage.Errorf("--batch: %v", err)
	}
	if r.maxFailures < 0 {
		return usage.Errorf("--max-failures cannot be negative")
	}
	return nil
}

// rollOut prepares a job, does the task on each of its nodes, and prints the results.
func (v *call) rollOut(ctx context.Context, r *rollout, prepare func(context.Context) (*job, target.Want, error),
	task func(ctx, stop context.Context, w *target.Want, step func(string)) fleet.Result) error {
	j, want, err := v.early(ctx, prepare)
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
		limited(r.limit, func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
			w := want
			w.Node = node
			return task(ctx, stop, &w, step)
		}))
	if results == nil {
		return err
	}
	return v.finish(results, err, r.dryRun)
}

// early does what comes before the first node is contacted. A signal ends it.
func (v *call) early(ctx context.Context, prepare func(context.Context) (*job, target.Want, error)) (*job, target.Want, error) {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	j, want, err := prepare(ctx)
	return j, want, cli.Interrupted(ctx, err)
}

// onNodes does a task on all nodes of the job and shows the progress. The first
// signal ends what has not changed anything yet, the second everything; either
// way the error then is a *cli.Stopped. The results are valid even if there
// is an error; there are none if no node was started.
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
			shown.Say("interrupted: no node is begun any more, and those that switch are waited for; again to leave them alone")
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

// progress shows the progress on many nodes. Close it before anything else is printed.
type progress interface {
	fleet.Observer
	Say(line string) // may be called concurrently
	Close()
}

// newProgress returns a bar if w is a terminal that can draw one. Otherwise it returns
// lines, one for each node that has ended; brief leaves these out.
func newProgress(w io.Writer, termName string, nodes int, brief bool) progress {
	f, ok := screen.Redraws(w, termName)
	if !ok {
		return &lines{Lines: screen.NewLines(w, Name), nodes: nodes, brief: brief}
	}
	b := &bar{steps: map[string]string{}, started: time.Now()}
	b.state.Store(&barState{nodes: nodes})
	b.Bar = screen.NewBar(f, Name, int64(nodes), screen.BarTexts{Before: b.before, After: b.after})
	return b
}

// bar is one progress bar for all nodes. A failure is printed above it at once.
type bar struct {
	*screen.Bar
	state   atomic.Pointer[barState]
	steps   map[string]string // by node
	started time.Time
}

type barState struct {
	ended, nodes, failed int
	steps                string // how many nodes are at which step
}

func (b *bar) before() string {
	s := b.state.Load()
	return fmt.Sprintf("%d of %d nodes ", s.ended, s.nodes)
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

func (b *bar) Begin(node string) { b.Step(node, "look") }

func (b *bar) Step(node, step string) {
	b.steps[node] = step
	b.update(func(*barState) {})
}

func (b *bar) End(r fleet.Result) {
	delete(b.steps, r.Node)
	b.update(func(s *barState) {
		s.ended++
		if r.State == fleet.Failed {
			s.failed++
		}
	})
	if r.State == fleet.Failed {
		b.Say(resultLine(r))
	}
}

func (b *bar) update(change func(*barState)) {
	s := *b.state.Load()
	change(&s)
	counts := map[string]int{}
	for _, step := range b.steps {
		counts[step]++
	}
	var parts []string
	for _, step := range []string{"look", "upload", "switch", "reconnect", "verify"} {
		if counts[step] > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", step, counts[step]))
		}
	}
	s.steps = strings.Join(parts, ", ")
	b.state.Store(&s)
	b.Set(int64(s.ended))
}

// lines prints a line for each node that has ended.
type lines struct {
	*screen.Lines
	nodes int
	brief bool
	ended int
}

func (l *lines) Begin(string)        {}
func (l *lines) Step(string, string) {}
func (l *lines) Close()              {}

func (l *lines) End(r fleet.Result) {
	l.ended++
	if l.brief || r.State == fleet.Skipped {
		return // the line with the counts at the end includes them
	}
	l.Say(fmt.Sprintf("[%d/%d] %s", l.ended, l.nodes, resultLine(r)))
}

// resultLine is one result in one line.
func resultLine(r fleet.Result) string {
	s := fmt.Sprintf("%s: %s, %s", r.Node, r.State, clock(r))
	if t := what(r); t != "" {
		s += ": " + t
	}
	return text.Line(s)
}
