package deploy

import (
	"context"
	"fmt"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
)

// installOn brings one node up to date.
func installOn(ctx, stop context.Context, ssh remote.Shell, w *target.Want, dry bool, step func(string)) fleet.Result {
	report, err := target.Probe(stop, ssh, w)
	if err != nil {
		return failed(err)
	}
	plan, err := target.Diff(w, report)
	if err != nil {
		return failed(err)
	}
	r := carryOut(ctx, stop, ssh, w.Node, plan, dry, step)
	if r.State == fleet.OK {
		step("verify")
		verify(ctx, ssh, w, &r)
	}
	return r
}

// verify looks again: what was installed has to be there, and nothing else be
// different.
func verify(ctx context.Context, ssh remote.Shell, w *target.Want, r *fleet.Result) {
	again := *w
	again.Force = false
	report, err := target.Probe(ctx, ssh, &again)
	if err == nil {
		var plan *target.Plan
		if plan, err = target.Diff(&again, report); err == nil && plan.Empty() {
			return
		}
		if err == nil {
			err = &target.Problem{Text: "not as it was left: " + plan.Changes[0].String(), Hint: "does something else manage this node?"}
		}
	}
	f := failed(err)
	r.State, r.Cause, r.Hint = fleet.Failed, "it was installed, and then: "+f.Cause, f.Hint
}

// carryOut applies a plan, unless there is nothing to do.
func carryOut(ctx, stop context.Context, ssh remote.Shell, node string, plan *target.Plan, dry bool, step func(string)) fleet.Result {
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
		r.Said, r.Journal = outcome.Said, outcome.Journal
	}
	if err != nil {
		f := failed(err)
		r.State, r.Cause, r.Hint = f.State, f.Cause, f.Hint
		return r
	}
	r.State = fleet.OK
	return r
}

// limited ends a task that takes too long.
func limited(limit time.Duration, task fleet.Task) fleet.Task {
	return func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
		late := fmt.Errorf("it has not ended within %v (--node-timeout)", limit)
		ctx, cancel := context.WithTimeoutCause(ctx, limit, late)
		defer cancel()
		stop, halt := context.WithTimeoutCause(stop, limit, late)
		defer halt()
		r := task(ctx, stop, node, step)
		if r.State == fleet.Interrupted && context.Cause(stop) == late {
			r.State, r.Cause, r.Hint = fleet.Failed, late.Error(), "is it overloaded? run it again, or look at the node"
		}
		return r
	}
}
