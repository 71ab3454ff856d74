package commands

import (
	"context"
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
)

// onNodes does a task on all nodes of the job and shows how it goes. The first
// signal ends what has not changed anything yet, the second everything; either
// way the error then is a *stopped.
func (j *job) onNodes(ctx context.Context, o fleet.Options, task fleet.Task) ([]fleet.Result, error) {
	var names []string
	for _, n := range j.nodes {
		names = append(names, n.Name)
	}
	stop, halt := context.WithCancelCause(ctx)
	defer halt(nil)
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	screen := fleet.NewScreen(j.v.Stderr, j.v.getenv, Name, len(names))
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case s := <-j.v.Signals:
			screen.Say("interrupted: no node is begun any more, and those that switch are waited for; again to leave them alone")
			halt(&stopped{signal: number(s)})
		case <-done:
			return
		}
		select {
		case s := <-j.v.Signals:
			leave(&stopped{signal: number(s)})
		case <-done:
		}
	}()
	results := fleet.Run(ctx, stop, names, o, task, screen)
	screen.Close()
	if s := (*stopped)(nil); errors.As(context.Cause(stop), &s) {
		return results, s
	}
	return results, nil
}
