package clientmount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// messageLimit bounds status.error.debugMessage, in bytes.
const messageLimit = 4 << 10

// errInterrupted is returned when no further step may start, because task.steps
// has ended. It is never reported as a failure.
var errInterrupted = errors.New("interrupted between two steps")

// reconciler brings one ClientMount to its desired state. It holds what all
// objects share and no state of any object.
type reconciler struct {
	node    string
	remote  remote
	host    Host
	records *Records
	stuck   *stuckTable
	limits  func() Limits
	plan    plan.Options
	log     *slog.Logger
	// An operation that takes longer than this publishes {state, ready:false}
	// in between; a quick one writes its outcome alone.
	progressAfter time.Duration

	registry *registry
	stopping func() bool      // reports whether the daemon was told to stop
	released func(uid string) // called when nothing of a deleted object's record is left; may be nil
}

// work is what is remembered of one object between two reconciles. The worker
// that runs owns it.
type work struct {
	uid      string
	status   *dws.ClientMountStatus // what the API server holds, as far as we know
	record   *Record
	loaded   bool
	unknown  bool   // the record could not be read, so the object claims what it asks for
	waited   bool   // no command of an earlier daemon runs any more for it
	held     bool   // our finalizer is on the object, whatever the watch says yet
	reported string // text of the last failure that was logged
	refused  refusal
	unsaved  string // text of the last failure to save the record on the way down
	// A first attempt to mount: the profile may be one that was read for
	// another attempt a moment ago.
	mayShare bool
}

// refusal is a request that failed and was logged.
type refusal struct {
	what string
	err  error
}

// result tells the loop what to do next with the object.
type result struct {
	retry    bool           // try again after a pause
	hopeless bool           // only a change of the object or its profile can help
	finished bool           // our finalizer is off, nothing is left
	failed   bool           // the last attempt ended with an error
	api      bool           // because a request to the API server failed
	blocked  *conflictError // a path is in use by another object
}

// task is work on one object: an attempt on one that exists, or undoing what a
// deleted one has left.
type task struct {
	*reconciler
	uid   string
	ctx   context.Context // of commands and requests
	steps context.Context // ends before ctx: no further step starts, and waiting ends
	log   *slog.Logger
}

// attempt is the state of one reconcile.
type attempt struct {
	task
	remote   remote
	meter    *meter
	machine  Machine // the node, for what is not about one mount
	w        *work
	cm       *dws.ClientMount
	began    time.Time
	commands time.Duration
	progress *progress
}

// reconcile is one attempt. steps ends before ctx if the object changes or the
// daemon stops. A panic ends the attempt, not the daemon.
func (r *reconciler) reconcile(ctx, steps context.Context, w *work, cm *dws.ClientMount) (res result) {
	log := r.log.With("clientmount", cm.Name, "workflow", cm.Label(api.LabelWorkflowName))
	t := task{reconciler: r, uid: string(cm.UID), ctx: ctx, steps: steps, log: log}
	a := &attempt{task: t, remote: r.remote, meter: &meter{Client: r.remote.client}, w: w, cm: cm, began: time.Now()}
	a.remote.client = a.meter
	defer func() {
		if p := recover(); p != nil {
			a.progress.end()
			log.Error("internal error while handling a ClientMount; please report it", "panic", fmt.Sprint(p), "stack", string(debug.Stack()), daemon.EventID(eventPanic))
			res = result{retry: true, failed: true}
		}
	}()
	return a.run()
}

func (a *attempt) run() result {
	failpoint.At("reconcile/begin")
	a.machine = a.machineFor(a.ctx, a.log, purpose{uid: a.uid})
	if !a.w.loaded {
		a.w.status = &a.cm.Status
		rec, err := a.records.Load(a.uid)
		if err != nil {
			return a.withoutRecord(err)
		}
		a.w.record, a.w.loaded = rec, true
		if a.w.unknown { // what it has claimed is known now
			a.registry.keep(a.uid, rec)
		}
	}
	if a.w.record != nil && !a.w.waited {
		if err := a.waitLeftovers(a.w.record); err != nil {
			return result{} // interrupted; the next attempt waits again
		}
	}
	a.w.waited = true
	invalid := plan.CheckObject(a.cm, a.node)
	switch {
	case a.cm.DeletionTimestamp != nil:
		return a.delete(invalid)
	case invalid != nil && !(a.cm.Spec.DesiredState == dws.Unmounted && a.w.record != nil):
		return a.refuse(invalid)
	case a.cm.Spec.DesiredState == dws.Mounted:
		return a.mounted()
	default:
		return a.unmounted(invalid)
	}
}

// withoutRecord ends an attempt that cannot know what it owns: the record exists
// and cannot be read. Nothing is done, nothing is overwritten, and the
// finalizer stays, until an administrator has repaired or removed the file.
func (a *attempt) withoutRecord(err error) result {
	if a.cm.DeletionTimestamp != nil && !hasFinalizer(a.cm) {
		return result{finished: true}
	}
	// It may have mounted what it asks for, so its paths are not free for others.
	claims := newRecord(a.cm, a.began)
	for i := range a.cm.Spec.Mounts {
		if p, err := plan.Fallback(a.cm, i, true, a.undoOptions()); err == nil {
			claims.Mounts = append(claims.Mounts, MountRecord{Plan: *p})
		}
	}
	a.registry.keep(claims.UID, claims)
	a.w.unknown = true
	status := a.baseStatus(a.cm.Spec.DesiredState)
	if a.cm.DeletionTimestamp != nil {
		status = a.baseStatus(dws.Unmounted)
	}
	return a.finish(status, failed(dws.WrapError(dws.Major, "", err)))
}

// refuse reports an object that must not be acted on. Nothing was done for
// it, so it needs no finalizer.
func (a *attempt) refuse(err error) result {
	a.registry.keep(a.uid, a.w.record) // nothing but what is recorded
	status := a.baseStatus(a.cm.Spec.DesiredState)
	return a.finish(status, err)
}

// baseStatus is the status to start from: what is published already if it is about
// the same state, else no mount is ready.
func (a *attempt) baseStatus(s dws.State) *dws.ClientMountStatus {
	if s != dws.Mounted && s != dws.Unmounted {
		s = dws.Unmounted // the schema knows no other
	}
	out := a.noneReady(s)
	if known := a.w.status; known != nil && len(known.Mounts) == len(out.Mounts) {
		for i := range known.Mounts {
			if known.Mounts[i].State != s {
				return out
			}
		}
		copy(out.Mounts, known.Mounts)
	}
	return out
}

// noneReady is the status in which no mount is ready.
func (a *attempt) noneReady(s dws.State) *dws.ClientMountStatus {
	out := &dws.ClientMountStatus{Mounts: make([]dws.MountStatus, len(a.cm.Spec.Mounts))}
	for i := range out.Mounts {
		out.Mounts[i].State = s
	}
	return out
}

// finish writes the status if it differs from what is published, logs an error once
// per text, and returns what comes next.
func (a *attempt) finish(status *dws.ClientMountStatus, failure error) result {
	res := result{}
	status.Error = nil
	if failure != nil {
		e := dws.WrapError(dws.Minor, "", failure)
		e.DebugMessage = shorten(e.DebugMessage, messageLimit)
		status.Error = e
		res.retry, res.failed = true, true
		res.blocked, _ = errors.AsType[*conflictError](failure)
		res.hopeless = e.Severity == dws.Fatal
		a.report(e, failure)
	} else {
		a.w.reported = ""
	}
	status.AllReady = failure == nil && allReady(status)
	a.progress.end()
	if !sameStatus(a.w.status, status) {
		if err := a.remote.patchStatus(a.ctx, a.cm, status); err != nil {
			return a.apiFailure("cannot write the status", err)
		}
		a.w.status = status
	}
	a.w.refused = refusal{}
	return res
}

// apiFailure handles an answer of the API server that ends the attempt. What
// was done on the node stays done; the next attempt finds it.
func (a *attempt) apiFailure(what string, err error) result {
	a.progress.end()
	if errors.Is(err, errSuperseded) {
		return result{}
	}
	if was := a.w.refused; was.what != what || !kube.SameTrouble(was.err, err) {
		a.w.refused = refusal{what, err}
		a.log.Warn(what, "error", err, daemon.EventID(eventAPI))
	}
	return result{retry: true, failed: true, api: true}
}

// report logs a failure once per text, with what to do.
func (a *attempt) report(e *dws.ResourceError, cause error) {
	if a.w.reported == e.DebugMessage {
		return
	}
	a.w.reported = e.DebugMessage
	event, level := eventFailed, slog.LevelWarn
	if e.Severity == dws.Fatal {
		event, level = eventRefused, slog.LevelError
	}
	a.log.Log(a.ctx, level, "ClientMount failed", "severity", string(e.Severity), "error", e.DebugMessage, "hint", hintFor(e, cause), daemon.EventID(event))
}

func sameStatus(a, b *dws.ClientMountStatus) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.AllReady == b.AllReady && slices.Equal(a.Mounts, b.Mounts) && a.Error.SameAs(b.Error)
}

// failed puts the prefix that workload managers know before the error of a mount or
// unmount.
func failed(err error) error {
	return dws.WrapError(dws.Minor, "mount/unmount failed", err)
}

// progress publishes {state, ready:false} once while an operation is under way. A
// quick operation ends before a reader could see that, so it saves the write.
type progress struct {
	lock   chan struct{} // holds one value while the write or end runs
	timer  *time.Timer
	over   bool
	state  atomic.Int32
	cancel context.CancelFunc // of the write
}

// What became of the write.
const (
	progressWaits = iota
	progressSent
	progressCancelled
)

// end stops publishing and waits for a write that is under way, so that the
// outcome is written after it. One that still waits for its turn is not sent. A
// nil progress has nothing to end.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.timer.Stop()
	if p.state.CompareAndSwap(progressWaits, progressCancelled) {
		p.cancel()
	}
	p.lock <- struct{}{}
	p.over = true
	<-p.lock
}

func (a *attempt) startProgress(s dws.State) {
	status := a.baseStatus(s)
	if sameStatus(a.w.status, status) || a.progressAfter <= 0 {
		return
	}
	p := &progress{lock: make(chan struct{}, 1)}
	ctx, cancel := context.WithCancel(a.ctx)
	p.cancel = cancel
	ctx = kube.WithSent(ctx, func() {
		if !p.state.CompareAndSwap(progressWaits, progressSent) {
			cancel()
		}
	})
	a.progress = p
	p.lock <- struct{}{}
	defer func() { <-p.lock }()
	p.timer = time.AfterFunc(a.progressAfter, func() {
		p.lock <- struct{}{}
		defer func() { <-p.lock }()
		if !p.over {
			// A failed write is no loss: the outcome follows.
			_ = a.publish(ctx, status)
		}
	})
}

// publish writes an intermediate status. The time that it takes is not counted.
func (a *attempt) publish(ctx context.Context, status *dws.ClientMountStatus) error {
	if sameStatus(a.w.status, status) {
		return nil
	}
	if err := a.reconciler.remote.patchStatus(ctx, a.cm, status); err != nil {
		return err
	}
	copied := *status
	copied.Mounts = slices.Clone(status.Mounts)
	a.w.status = &copied
	return nil
}

// interrupted ends an attempt between two steps. When the daemon stops, what
// is known is written to the status, even if the object has changed before. When
// only the object changed, the next attempt starts at once and writes its own.
func (a *attempt) interrupted(status *dws.ClientMountStatus) result {
	a.progress.end()
	if !a.stopping() {
		return result{}
	}
	if a.w.status != nil && slices.Equal(a.w.status.Mounts, status.Mounts) {
		return result{} // an error that is published stays true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 5*time.Second)
	defer cancel()
	a.ctx = ctx
	return a.finish(status, nil)
}

// withdraw publishes ready:false for the entries whose ready:true is no longer true.
func (a *attempt) withdraw(status *dws.ClientMountStatus, untrue func(i int) bool) error {
	changed := false
	for i := range status.Mounts {
		if m := &status.Mounts[i]; m.Ready && untrue(i) {
			m.Ready, changed = false, true
		}
	}
	if !changed {
		return nil
	}
	return a.publish(a.ctx, status)
}

func allReady(s *dws.ClientMountStatus) bool {
	return !slices.ContainsFunc(s.Mounts, func(m dws.MountStatus) bool { return !m.Ready })
}

// keep returns the first of two errors.
func keep(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// save writes the record; the registry follows it.
func (r *reconciler) save(rec *Record) error {
	r.registry.keep(rec.UID, rec)
	return r.records.Save(rec)
}

func (a *attempt) saveRecord() error { return a.save(a.w.record) }
