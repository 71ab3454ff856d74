package deploy

import (
	"context"
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

// early does what comes before the first node is begun, which a signal ends.
func (v *call) early(ctx context.Context, prepare func(context.Context) (*job, target.Want, error)) (*job, target.Want, error) {
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	j, want, err := prepare(ctx)
	return j, want, cli.Interrupted(ctx, err)
}

// onNodes does a task on all nodes of the job and shows how it goes. The first
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
	screen := fleet.NewScreen(j.v.Stderr, j.v.Getenv, Name, len(names), brief)
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case s := <-j.v.Signals:
			screen.Say("interrupted: no node is begun any more, and those that switch are waited for; again to leave them alone")
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
	observer, finished, err := j.record(names, screen)
	if err != nil {
		screen.Close()
		return nil, err
	}
	results := fleet.Run(ctx, stop, names, o, task, observer)
	screen.Close()
	if err := finished(); err != nil {
		return results, err
	}
	if s := (*cli.Stopped)(nil); errors.As(context.Cause(stop), &s) {
		return results, s
	}
	return results, nil
}
