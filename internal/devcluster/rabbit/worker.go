package rabbit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
)

// poll is the interval in which a worker checks conditions without events: the control
// file, an unreachable server.
const poll = 50 * time.Millisecond

// worker processes one movement.
type worker struct {
	*crew
	api      dynamic.ResourceInterface
	name, ns string
	uid      types.UID
	wake     chan struct{}
	seen     time.Time // first event
	minors   int       // injected so far
	retries  int       // after Minor errors
	storming bool
	command  *execution // current or last one of this run
}

func newWorker(c *crew, o *unstructured.Unstructured) *worker {
	return &worker{crew: c, api: c.Client.Resource(movements).Namespace(o.GetNamespace()), name: o.GetName(), ns: o.GetNamespace(),
		uid: o.GetUID(), wake: make(chan struct{}, 1), seen: time.Now()}
}

// Results of step besides a time after which to check again.
const (
	atEvent = time.Duration(0)  // nothing to do until the object changes or the command exits
	gone    = time.Duration(-1) // the object does not exist
)

func (w *worker) work() {
	ctx, cancel := context.WithCancel(w.ctx) // stops a storm
	defer cancel()
	defer func() {
		if w.command != nil {
			w.command.kill()
			<-w.command.done
		}
	}()
	for {
		again := w.step(ctx)
		var timer <-chan time.Time
		switch {
		case again == gone:
			return
		case again > 0:
			timer = time.After(again)
		}
		var ended <-chan struct{}
		if w.command.running() {
			ended = w.command.done
		}
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer:
		case <-ended:
		}
	}
}

// step reads the object and takes the next action.
func (w *worker) step(ctx context.Context) time.Duration {
	o, err := w.get(ctx)
	if apierrors.IsNotFound(err) {
		return gone
	}
	var m *movement
	if err == nil {
		m, err = decode(o)
	}
	if err != nil {
		return w.later(ctx, err)
	}
	faults := w.faults(m)
	if faults.Storm > 0 && !w.storming && m.Status.State != finished {
		w.storming = true
		w.busy.Go(func() { w.storm(ctx, faults.Storm) })
	}
	again, err := w.next(ctx, m, faults)
	if apierrors.IsNotFound(err) {
		return gone
	}
	if err != nil {
		return w.later(ctx, err)
	}
	return again
}

func (w *worker) next(ctx context.Context, m *movement, faults Faults) (time.Duration, error) {
	switch {
	case faults.Hold && !w.command.running():
		return poll, nil
	case m.DeletionTimestamp != nil:
		return w.remove(ctx, m)
	case !slices.Contains(m.Finalizers, finalizer):
		return atEvent, w.setFinalizer(ctx, true)
	case m.Status.State == finished:
		return atEvent, nil
	case w.command.running():
		if m.Spec.Cancel {
			w.command.cancel()
		}
		return atEvent, nil
	case w.command != nil:
		return poll, nil // finished, and the status is written: this state is older
	case m.Spec.Cancel:
		return atEvent, nil // like the real controller: ignored until it is deleted
	case time.Since(w.seen) < faults.Delay:
		return min(faults.Delay-time.Since(w.seen), poll), nil // poll: the control file may shorten it
	}
	return w.launch(ctx, m, faults)
}

// launch prepares and starts the command of the movement.
func (w *worker) launch(ctx context.Context, m *movement, faults Faults) (time.Duration, error) {
	plan, err := w.plan(ctx, m, faults)
	var p *problem
	switch {
	case errors.As(err, &p) && p.severity == "Minor":
		w.retries++
		return min(poll<<min(w.retries, 6), 2*time.Second), w.status(ctx, p.write)
	case errors.As(err, &p):
		return atEvent, w.status(ctx, func(status map[string]any) {
			p.write(status)
			status["state"], status["status"] = finished, invalidated // without endTime
		})
	case err != nil:
		return 0, err
	}
	select {
	case w.slots <- struct{}{}:
	default:
		return poll, nil // no free slot; the movement may be cancelled while it waits
	}
	free := func() { <-w.slots }
	err = w.status(ctx, func(status map[string]any) {
		if status["state"] == running { // an earlier run started it
			n, _ := status["restarts"].(int64)
			status["restarts"] = n + 1
		}
		delete(status, "message") // of Minor errors
		delete(status, "error")
		status["state"], status["startTime"] = running, stamp(time.Now())
		status["commandStatus"] = map[string]any{"command": plan.command}
	})
	if err != nil {
		free()
		return 0, err
	}
	w.command = w.start(ctx, m, plan, free)
	if faults.Die > 0 {
		time.AfterFunc(faults.Die, func() { w.injectDeath(w.uid) })
	}
	return poll, nil // it may have been cancelled before the start
}

// remove removes the finalizer after the command has exited.
func (w *worker) remove(ctx context.Context, m *movement) (time.Duration, error) {
	if w.command.running() {
		w.command.cancel()
		return atEvent, nil
	}
	if !slices.Contains(m.Finalizers, finalizer) {
		return atEvent, nil // another controller's finalizer
	}
	if m.Status.State != finished {
		err := w.status(ctx, func(status map[string]any) {
			now := stamp(time.Now())
			if status["startTime"] == nil {
				status["startTime"] = now
			}
			status["endTime"], status["state"], status["status"] = now, finished, cancelled
		})
		if err != nil {
			return 0, err
		}
	}
	return atEvent, w.setFinalizer(ctx, false)
}

// later logs an error and returns the time until the retry.
func (w *worker) later(ctx context.Context, err error) time.Duration {
	if ctx.Err() == nil {
		w.Log("%s/%s: %v; retrying", w.ns, w.name, err)
	}
	return 4 * poll
}

func (w *worker) get(ctx context.Context) (*unstructured.Unstructured, error) {
	o, err := w.api.Get(ctx, w.name, metav1.GetOptions{})
	if err == nil && o.GetUID() != w.uid { // a new object with the same name has its own worker
		return nil, apierrors.NewNotFound(movements.GroupResource(), w.name)
	}
	return o, err
}

func (w *worker) setFinalizer(ctx context.Context, want bool) error {
	return w.retry(ctx, func() error {
		o, err := w.get(ctx)
		if err != nil {
			return err
		}
		list := slices.DeleteFunc(o.GetFinalizers(), func(f string) bool { return f == finalizer })
		if want {
			list = append(list, finalizer)
		}
		o.SetFinalizers(list)
		_, err = w.api.Update(ctx, o, metav1.UpdateOptions{})
		return err
	})
}

// status changes the status and retries after conflicts.
func (w *worker) status(ctx context.Context, change func(map[string]any)) error {
	return w.retry(ctx, func() error { return w.statusOnce(ctx, change) })
}

func (w *worker) statusOnce(ctx context.Context, change func(map[string]any)) error {
	o, err := w.get(ctx)
	if err != nil {
		return err
	}
	status, _ := o.Object["status"].(map[string]any)
	if status == nil {
		status = map[string]any{}
	}
	change(status)
	o.Object["status"] = status
	_, err = w.api.UpdateStatus(ctx, o, metav1.UpdateOptions{})
	return err
}

// retry repeats do after conflicts, of which a storm causes many.
func (w *worker) retry(ctx context.Context, do func() error) error {
	for {
		err := do()
		if !apierrors.IsConflict(err) || ctx.Err() != nil {
			return err
		}
	}
}

// storm changes an annotation many times a second until the movement is finished, which
// causes conflicts for other clients.
func (w *worker) storm(ctx context.Context, perSecond int) {
	tick := time.NewTicker(time.Second / time.Duration(perSecond))
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		patch := fmt.Appendf(nil, `{"metadata":{"uid":%q,"annotations":{"devcluster/storm":"%d"}}}`, w.uid, n)
		o, err := w.api.Patch(ctx, w.name, types.MergePatchType, patch, metav1.PatchOptions{})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			return
		}
		if err != nil {
			continue
		}
		if state, _, _ := unstructured.NestedString(o.Object, "status", "state"); state == finished {
			return
		}
	}
}
