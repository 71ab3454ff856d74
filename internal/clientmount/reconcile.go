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
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// messageLimit bounds status.error.debugMessage, in bytes.
const messageLimit = 4 << 10

// errInterrupted means that no further step may start, because task.steps is done. It
// is never reported as a failure.
var errInterrupted = errors.New("interrupted between two steps")

// reconciler brings ClientMounts to their desired state. It holds what all objects
// share, and no state of a single object.
type reconciler struct {
	node    string
	remote  remote
	host    Host
	records *Records
	stuck   *stuckTable
	busy    *busyTable
	limits  func() Limits
	plan    plan.Options
	log     *slog.Logger
	// An operation that takes longer than this publishes {state, ready:false} before
	// its result; a shorter one writes only the result.
	progressAfter time.Duration

	metrics  *metrics // nil: off
	registry *registry
	stopping func() bool      // reports whether the daemon is stopping
	released func(uid string) // called when the record of a deleted object is finished; may be nil
}

// work is the state of one object between two attempts. The running worker owns it.
type work struct {
	uid      string
	status   *dws.ClientMountStatus // the status in the API server, as last read or written
	record   *Record
	loaded   bool
	unknown  bool   // the record could not be read, so the object claims all paths in its spec
	waited   bool   // no command of an earlier daemon still runs for it
	held     bool   // our finalizer is on the object, even if the watch has not shown it yet
	reported string // text of the last failure that was logged
	refused  refusal
	unsaved  string // text of the last failure to save the record during an unmount
	// This is the first attempt to mount, which may use a profile that was read for
	// another attempt a moment ago.
	mayShare bool

	// What the record reports; without a record, what has happened so far.
	created  time.Time
	steps    stepLog
	phase    string // of the last attempt
	failure  *mountstate.Failure
	noted    *mountstate.Failure // what Records.NoteFailure has saved
	failedAt time.Time           // end of the running or last attempt, if it failed
}

// refusal is a failed request that was logged.
type refusal struct {
	what string
	err  error
}

// result tells the loop what to do next with the object.
type result struct {
	retry     bool           // retry after a pause
	permanent bool           // only a change of the object or its profile can help
	finished  bool           // our finalizer is removed and nothing is left to do
	failed    bool           // the last attempt ended with an error
	failure   error          // the error, unless a request failed
	api       bool           // because a request to the API server failed
	blocked   *conflictError // another object uses a path
}

// task is work on one object: an attempt for an object that exists, or the unmount of
// an orphan.
type task struct {
	*reconciler
	uid   string
	ctx   context.Context // of commands and requests
	steps context.Context // done before ctx: then no further step starts, and waiting stops
	log   *slog.Logger
}

// attempt is the state of one reconcile.
type attempt struct {
	task
	remote   remote
	meter    *meter
	machine  Machine // the node, for work that does not concern a single mount
	w        *work
	cm       *dws.ClientMount
	started  time.Time
	commands time.Duration
	progress *progress
	phase    string // mountstate.PhaseMount or PhaseUnmount
	// The mounts were ready before: the attempt only checks them, which the timeline does not
	// show unless it fails.
	checks bool
}

// reconcile runs one attempt. steps is done before ctx if the object changes or the
// daemon stops. A panic ends only the attempt.
func (r *reconciler) reconcile(ctx, steps context.Context, w *work, cm *dws.ClientMount) (res result) {
	log := r.log.With("clientmount", cm.Name, "workflow", cm.Label(api.LabelWorkflowName))
	t := task{reconciler: r, uid: string(cm.UID), ctx: ctx, steps: steps, log: log}
	a := &attempt{task: t, remote: r.remote, meter: &meter{Client: r.remote.client}, w: w, cm: cm, started: time.Now()}
	a.remote.client = a.meter
	a.meter.note = func(request string, started time.Time, err error) {
		a.note("", mountstate.StepAPI, request, started, err)
	}
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
	failpoint.At("reconcile/start")
	a.machine = a.machineFor(a.ctx, a.log, purpose{uid: a.uid})
	if a.w.created.IsZero() {
		a.w.created = a.started
	}
	failedAt := a.w.failedAt
	a.w.failedAt = time.Time{}
	if !a.w.loaded {
		a.w.status = &a.cm.Status
		rec, err := a.records.Load(a.uid)
		if err != nil {
			return a.withoutRecord(err)
		}
		a.w.record, a.w.loaded = rec, true
		if rec != nil {
			rec.Orphan = nil // it has an object again
			a.w.created, a.w.steps, a.w.failure = rec.Created, rec.stepLog, rec.Failure
		}
		if a.w.unknown { // now the record shows what it claims
			a.registry.keep(a.uid, rec)
		}
	}
	if a.w.record != nil && !a.w.waited {
		if err := a.waitLeftovers(a.w.record); err != nil {
			return result{} // interrupted; the next attempt waits again
		}
	}
	a.w.waited = true
	a.phase = mountstate.PhaseUnmount
	if a.cm.Spec.DesiredState == dws.Mounted && a.cm.DeletionTimestamp == nil {
		a.phase = mountstate.PhaseMount
		a.checks = a.w.record != nil && a.w.failure == nil && !slices.ContainsFunc(a.w.record.Mounts, func(m MountRecord) bool { return !m.Ready || m.Unmounting })
	}
	if a.w.phase != "" && a.w.phase != a.phase {
		a.w.failure = nil // it was one of the other phase
	}
	a.w.phase = a.phase
	if !failedAt.IsZero() {
		a.note("", mountstate.StepRetry, mountstate.NameRetry, failedAt, nil)
	}
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

// withoutRecord ends an attempt whose record exists but cannot be read. It mounts and
// unmounts nothing, does not overwrite the file, and keeps the finalizer until an
// administrator has repaired or removed the file.
func (a *attempt) withoutRecord(err error) result {
	if a.cm.DeletionTimestamp != nil && !hasFinalizer(a.cm) {
		return result{finished: true}
	}
	// Its file systems may be mounted, so no other object may use the paths.
	claims := newRecord(a.cm, a.started)
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

// refuse reports an object on which the daemon must not act. Nothing was done for it,
// so it needs no finalizer.
func (a *attempt) refuse(err error) result {
	a.registry.keep(a.uid, a.w.record) // claim only what is recorded
	status := a.baseStatus(a.cm.Spec.DesiredState)
	return a.finish(status, err)
}

// baseStatus returns the status to start from: the published one if it has the same
// state, otherwise one in which no mount is ready.
func (a *attempt) baseStatus(s dws.State) *dws.ClientMountStatus {
	if s != dws.Mounted && s != dws.Unmounted {
		s = dws.Unmounted // the schema allows no other value
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

// noneReady returns a status in which no mount is ready.
func (a *attempt) noneReady(s dws.State) *dws.ClientMountStatus {
	out := &dws.ClientMountStatus{Mounts: make([]dws.MountStatus, len(a.cm.Spec.Mounts))}
	for i := range out.Mounts {
		out.Mounts[i].State = s
	}
	return out
}

// finish writes the status if it differs from the published one, logs an error once per
// text, and returns the result of the attempt.
func (a *attempt) finish(status *dws.ClientMountStatus, failure error) result {
	res := result{}
	status.Error = nil
	if failure != nil {
		e := dws.WrapError(dws.Minor, "", failure)
		e.DebugMessage = text.Shorten(e.DebugMessage, messageLimit)
		status.Error = e
		res.retry, res.failed, res.failure = true, true, failure
		res.blocked, _ = errors.AsType[*conflictError](failure)
		res.permanent = e.Severity == dws.Fatal
		a.report(e, failure)
		a.fails(failureKind(failure), failure)
	} else {
		a.w.reported = ""
		if rec := a.w.record; rec != nil && rec.Ready == nil && a.phase == mountstate.PhaseMount && allReady(status) {
			now := time.Now()
			rec.Ready = &now
		}
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
	if failure == nil {
		a.w.failure = nil
	}
	a.saveReport()
	return res
}

// note adds a step to the timeline.
func (a *attempt) note(path, kind, name string, started time.Time, err error) {
	if a.checks && err == nil || errors.Is(err, errInterrupted) {
		return
	}
	a.w.steps.add(path, a.phase, kind, name, started, err)
}

// fails records why the attempt failed, for the commands that report about the node. A request that
// fails after that, to report the failure, does not replace it.
func (a *attempt) fails(kind string, err error) {
	if a.w.failedAt.IsZero() {
		a.w.failure = newFailure(a.w.failure, kind, "", err)
		a.w.failedAt = time.Now()
	}
}

// saveReport saves what the commands that report about the node show. A failure to do so is logged
// only for debugging: the mounts are not affected.
func (a *attempt) saveReport() {
	var err error
	switch {
	case a.w.record != nil:
		a.forgetFailure()
		err = a.saveRecord()
	case a.w.failure == nil:
		a.forgetFailure()
	case a.w.noted == nil || *a.w.noted != *a.w.failure:
		rec := newRecord(a.cm, a.w.created)
		rec.Unplanned = a.unplanned(func(int) bool { return true })
		rec.stepLog, rec.Failure = a.w.steps, a.w.failure
		if err = a.records.NoteFailure(rec); err == nil {
			a.w.noted = a.w.failure
		}
	}
	if err != nil {
		a.log.Debug("cannot save the state for reports", "error", err, daemon.EventID(eventRecord))
	}
}

// unplannedLimit is how many mounts without a plan are reported.
const unplannedLimit = 64

// unplanned returns the mounts without a plan, as they are reported. Nothing has checked their texts.
func (a *attempt) unplanned(without func(i int) bool) (list []MountRecord) {
	for i := range a.cm.Spec.Mounts {
		if m := &a.cm.Spec.Mounts[i]; without(i) && len(list) < unplannedLimit {
			list = append(list, MountRecord{Since: a.w.created, Unmounting: a.phase == mountstate.PhaseUnmount, Plan: plan.Plan{
				Path: text.Line(text.Clip(m.MountPath, 4096)), Type: text.Line(text.Clip(m.Type, 64)), Index: i,
			}})
		}
	}
	return list
}

func (a *attempt) forgetFailure() {
	if a.w.noted != nil {
		a.w.noted = nil
		a.records.ForgetFailure(a.uid)
	}
}

// apiFailure ends an attempt because of a failed request. Completed steps on the node
// stay; the next attempt finds them.
func (a *attempt) apiFailure(what string, err error) result {
	a.progress.end()
	if errors.Is(err, errSuperseded) {
		return result{}
	}
	if was := a.w.refused; was.what != what || !kube.SameKind(was.err, err) {
		a.w.refused = refusal{what, err}
		a.log.Warn(what, "error", err, daemon.EventID(eventAPI))
	}
	a.fails(mountstate.FailureAPI, err)
	a.saveReport()
	return result{retry: true, failed: true, api: true}
}

// report logs a failure once per text, with a hint.
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

// failed adds the prefix that workload managers expect to the error of a mount or
// unmount.
func failed(err error) error {
	return dws.WrapError(dws.Minor, "mount/unmount failed", err)
}

// progress publishes {state, ready:false} once during a long operation. A short one
// finishes before a reader could see it and does not need the write.
type progress struct {
	lock   chan struct{} // holds one value while the write or end runs
	timer  *time.Timer
	over   bool
	state  atomic.Int32
	cancel context.CancelFunc // of the write
}

// States of the write.
const (
	progressWaits = iota
	progressSent
	progressCancelled
)

// end stops publishing and waits for a write in progress, so that the result is written
// after it. A write that still waits in the limiter is not sent. On a nil progress it
// does nothing.
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
			// A failed write does not matter: the result follows.
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

// interrupted ends an attempt between two steps. If the daemon is stopping, it writes
// the status so far, even if the object has changed. If only the object has changed, the
// next attempt starts immediately and writes its own status.
func (a *attempt) interrupted(status *dws.ClientMountStatus) result {
	a.progress.end()
	if !a.stopping() {
		return result{}
	}
	if a.w.status != nil && slices.Equal(a.w.status.Mounts, status.Mounts) {
		return result{} // a published error is still true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 5*time.Second)
	defer cancel()
	a.ctx = ctx
	return a.finish(status, nil)
}

// withdrawReady publishes ready:false for the ready entries for which untrue returns true.
func (a *attempt) withdrawReady(status *dws.ClientMountStatus, untrue func(i int) bool) error {
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

// save updates the registry and writes the record.
func (r *reconciler) save(rec *Record) error {
	r.registry.keep(rec.UID, rec)
	return r.records.Save(rec)
}

// save is reconciler.save with what the record reports.
func (a *attempt) save(rec *Record) error {
	rec.Failure, rec.stepLog = a.w.failure, a.w.steps
	return a.reconciler.save(rec)
}

func (a *attempt) saveRecord() error { return a.save(a.w.record) }
