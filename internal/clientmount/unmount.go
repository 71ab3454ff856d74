package clientmount

import (
	"errors"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// unmounted unmounts all entries in reverse order. It does not touch an entry that is
// reported as unmounted and ready: the hooks may have stopped services that a second
// unmount would need.
func (a *attempt) unmounted(invalid error) result {
	status := a.baseStatus(dws.Unmounted)
	if allReady(status) && !a.w.record.pending() {
		a.registry.keep(a.uid, a.w.record) // claim only what is recorded
		return a.finish(status, nil)
	}
	if err := a.ensureFinalizer(); err != nil {
		return a.apiFailure("cannot add the finalizer", err)
	}
	a.startProgress(dws.Unmounted)
	if err := a.unmountAll(status, invalid); err != nil {
		return a.notUnmounted(status, err)
	}
	a.registry.keep(a.uid, a.w.record)
	failpoint.At("unmount/done")
	return a.finish(status, nil)
}

// delete unmounts all entries that may be mounted and removes the finalizer.
func (a *attempt) delete(invalid error) result {
	if !hasFinalizer(a.cm) {
		a.registry.keep(a.uid, a.w.record) // claim only what is recorded
		return result{finished: true}
	}
	status := a.baseStatus(dws.Unmounted)
	undone := allReady(status) && !a.w.record.pending() // the profile is no longer needed
	untouched := a.w.record == nil && invalid != nil
	if !undone && !untouched && !failpoint.Bug("finalizer-first") {
		a.startProgress(dws.Unmounted)
		if err := a.unmountAll(status, invalid); err != nil {
			return a.notUnmounted(status, err)
		}
		failpoint.At("delete/unmounted")
	}
	if a.w.record != nil {
		if undone {
			a.removeLeftTargets()
		}
		if a.plan.Mode == "" || a.plan.Mode == plan.ModeReal {
			a.rescan(a.w.record.plans())
		}
	}
	a.progress.end()
	if err := a.remote.removeFinalizer(a.ctx, a.cm); err != nil && !kube.IsNotFound(err) {
		return a.apiFailure("cannot remove the finalizer", err)
	}
	a.forgetFailure()
	if err := a.endRecord(); err != nil {
		a.log.Warn("record left behind", "error", err, daemon.EventID(eventRecord))
	}
	a.w.record = nil
	a.registry.keep(a.uid, nil)
	failpoint.At("record/removed")
	return result{finished: true}
}

// endRecord removes the record, and keeps its timeline.
func (a *attempt) endRecord() error {
	if a.w.record == nil {
		return a.records.Remove(a.uid)
	}
	a.w.record.stepLog = a.w.steps
	return a.records.End(a.w.record)
}

// notUnmounted ends an attempt whose unmountAll returned an error.
func (a *attempt) notUnmounted(status *dws.ClientMountStatus, err error) result {
	switch {
	case errors.Is(err, errInterrupted):
		return a.interrupted(status)
	case unanswered(err):
		return a.apiFailure("cannot get the storage profile", err)
	}
	return a.finish(status, failed(err))
}

// unmountAll unmounts, in reverse order, what the record of the object lists. Without a
// record it unmounts what the status of the object shows as mounted. It updates status
// after each mount and returns the first error.
func (a *attempt) unmountAll(status *dws.ClientMountStatus, invalid error) error {
	plans, err := a.undoPlans(status, invalid)
	if err != nil || len(plans) == 0 && a.w.record == nil {
		return err
	}
	if a.w.record == nil {
		a.w.record = newRecord(a.cm, a.w.created)
	}
	rec := a.w.record
	rec.Unplanned = nil
	for _, p := range plans {
		if rec.at(p.Path) == nil {
			rec.Mounts = append(rec.Mounts, MountRecord{Plan: *p})
		}
	}
	for i := range rec.Mounts {
		if m := &rec.Mounts[i]; !m.Unmounted && !m.Unmounting {
			m.Unmounting, m.Since, m.Failure, m.Holders = true, time.Now(), nil, nil
		}
	}
	a.saveUndone()
	var first error
	for _, p := range slices.Backward(plans) {
		m := rec.at(p.Path)
		if !m.Unmounted {
			began := time.Now()
			commands, keeper, err := a.unmountOne(p, m)
			a.commands += commands
			if errors.Is(err, errInterrupted) {
				return err
			}
			if err != nil && !failpoint.Bug("failed-unmount") {
				a.log.Debug("unmount failed", "mount_path", p.Path, "error", err, daemon.EventID(eventFailed))
				first = keep(first, err)
				continue
			}
			m.Unmounted, m.Unmounting, m.Ready, m.Mounted, m.Mounting = true, false, false, nil, false
			m.Since, m.Failure, m.Holders = time.Now(), nil, nil
			a.saveUndone()
			if keeper != "" {
				a.log.Info("released file system that another ClientMount still uses", "mount_path", p.Path, "type", p.Type, "used_by", keeper, daemon.EventID(eventUnmounted))
			} else {
				a.log.Info("unmounted file system", "mount_path", p.Path, "type", p.Type, "duration", time.Since(began), "commands", commands, daemon.EventID(eventUnmounted))
			}
		}
		if p.Index < len(status.Mounts) {
			status.Mounts[p.Index].Ready = true
		}
	}
	if first == nil {
		a.removeLeftTargets()
	}
	return first
}

// undoPlans returns the plan to unmount each entry: by the current profile if it still
// describes the mounted storage, otherwise by the record. It leaves out entries that
// are unmounted already and, without a record, those that were never mounted (see
// neverMounted).
func (a *attempt) undoPlans(status *dws.ClientMountStatus, invalid error) ([]*plan.Plan, error) {
	var fresh []*plan.Plan
	cause := invalid
	if invalid == nil {
		fresh, cause = a.plans(a.undoOptions())
		if cause != nil && unanswered(cause) && a.w.record == nil {
			return nil, cause
		}
	}
	var out []*plan.Plan
	for i := range a.cm.Spec.Mounts {
		if status.Mounts[i].Ready {
			continue
		}
		var p *plan.Plan
		if i < len(fresh) {
			p = fresh[i]
		}
		if rec := a.recorded(i, p); rec != nil {
			if p == nil || !rec.Plan.SamePlace(p) {
				old := rec.Plan
				old.Index = i
				p = &old
			}
		} else {
			if p == nil && invalid == nil {
				p = a.fallback(i)
			}
			if p != nil {
				never, err := a.neverMounted(i, p)
				if err != nil {
					return nil, err
				}
				if never {
					p = nil
				}
			}
		}
		if p == nil {
			a.log.Debug("nothing to unmount for an entry that was never mounted", "index", i, "error", cause)
			status.Mounts[i].Ready = true
			continue
		}
		out = append(out, p)
	}
	// Recorded mounts that the object does not list are unmounted as well.
	if a.w.record != nil {
		for i := range a.w.record.Mounts {
			m := &a.w.record.Mounts[i]
			if !m.Unmounted && !slices.ContainsFunc(out, func(p *plan.Plan) bool { return p.Path == m.Plan.Path }) {
				old := m.Plan
				old.Index = len(a.cm.Spec.Mounts) + i
				out = append(out, &old)
			}
		}
	}
	return out, nil
}

// undoOptions returns the options for plans to unmount, which is allowed at any path.
func (a *attempt) undoOptions() plan.Options {
	o := a.plan
	o.Roots = nil
	return o
}

// fallback plans an unmount without a profile, with the default commands. Since it does
// not know whether the volume group is shared, it tries both names and prefers the one
// whose device is mounted at the path.
func (a *attempt) fallback(i int) *plan.Plan {
	var first *plan.Plan
	for _, shared := range []bool{true, false} {
		make := func(o plan.Options) (*plan.Plan, error) { return plan.Fallback(a.cm, i, shared, o) }
		p, err := a.planOne(a.undoOptions(), nil, make)
		if err != nil {
			p, err = make(a.undoOptions()) // the path has links that must not be followed
		}
		if err != nil {
			continue
		}
		if first == nil {
			first = p
		}
		m, err := a.machine.MountAt(p.Path)
		if err != nil || m == nil {
			continue
		}
		if mine, err := matchesVolume(a.machine, *m, p, nil); err == nil && mine {
			return p
		}
	}
	return first
}

// neverMounted reports whether an entry without a record needs no unmount: the status
// of the object does not show it as mounted (by an earlier daemon, or before the node
// was booted), and its volume is not mounted at its path, or is mounted there for
// another ClientMount.
func (a *attempt) neverMounted(i int, p *plan.Plan) (bool, error) {
	if a.registry.taken(a.uid, p) {
		return true, nil
	}
	// If there is a record, the status of the object describes the recorded mounts.
	if was := a.cm.Status.Mounts; a.w.record == nil && i < len(was) && was[i].State == dws.Mounted && was[i].Ready {
		return false, nil
	}
	table, err := a.machine.MountsOn(p.Path)
	if err != nil {
		return false, err
	}
	for _, m := range table {
		if mine, err := matchesVolume(a.machine, m, p, nil); err != nil || mine {
			return false, err
		}
	}
	return true, nil
}

// saveUndone saves the record during an unmount, which continues even if the record
// cannot be written. It logs each error text once.
func (a *attempt) saveUndone() {
	if err := a.saveRecord(); err != nil && a.w.unsaved != err.Error() {
		a.w.unsaved = err.Error()
		a.log.Warn("cannot save the record while unmounting; continuing", "error", err, daemon.EventID(eventRecord))
	}
}

// unmountOne unmounts one entry while it holds the lock of the volume; see
// unmountInTurn.
func (a *attempt) unmountOne(p *plan.Plan, m *MountRecord) (commands time.Duration, keeper string, err error) {
	done, err := a.registry.sequence(a.steps, p)
	if err != nil {
		return 0, "", errInterrupted
	}
	defer done()
	return a.unmountInTurn(a.newRunner(p, m, a.saveRecord, a.note))
}

// unmountInTurn undoes one mount; the caller holds the lock of the volume. A mount that
// another ClientMount uses stays mounted, and keeper is the name of that ClientMount. A
// volume that is mounted elsewhere stays active. The claim is removed before the lock is
// released, so that the next ClientMount to unmount does not wait for this one. commands
// is the time spent in commands.
func (t *task) unmountInTurn(run *runner) (commands time.Duration, keeper string, err error) {
	t.registry.inherit(t.uid, run.rec)
	here, elsewhere := t.registry.sharers(t.uid, run.plan)
	if s := firstAlive(here); s != nil {
		t.registry.handOver(t.uid, run.rec)
		run.rec.Created = nil
		t.registry.forget(t.uid, run.plan.Path)
		return 0, s.name, nil
	}
	run.keepVolume = firstAlive(elsewhere) != nil
	if err = run.unmount(); err == nil {
		t.registry.forget(t.uid, run.plan.Path)
	}
	return run.commands, "", err
}

// unmount runs the unmount sequence. Its errors are those of mount.
func (r *runner) unmount() error {
	r.phase = mountstate.PhaseUnmount
	steps := r.unmountSteps()
	for i := range steps {
		s := &steps[i]
		if r.interrupted() {
			return errInterrupted
		}
		if r.keepVolume && s.Releases() {
			continue
		}
		if err := r.step(s); err != nil {
			if errors.Is(err, errInterrupted) {
				return err
			}
			if (s.Kind == plan.Deactivate || s.Kind == plan.LockStop) && !errors.Is(err, node.ErrHangs) {
				r.diagnose()
			}
			return r.fails(s, err)
		}
	}
	return nil
}

// unmountSteps returns the unmount steps of the plan. If something is mounted and the
// profile no longer has a mount command, it adds the built-in unmount.
func (r *runner) unmountSteps() []plan.Step {
	steps := r.plan.Unmount
	isUnmount := func(s plan.Step) bool { return s.Kind == plan.Unmount || s.Kind == plan.Unlink }
	if r.rec.Mounted == nil && !r.rec.Mounting || slices.ContainsFunc(steps, isUnmount) {
		return steps
	}
	at := slices.IndexFunc(steps, func(s plan.Step) bool { return s.Releases() })
	if at < 0 {
		at = len(steps)
	}
	return slices.Insert(slices.Clone(steps), at, r.plan.BuiltinUnmount())
}

// removeLeftTargets retries the removal of directories that were created for a mount and
// could not be removed with it, because a mount below them was unmounted later.
func (a *attempt) removeLeftTargets() {
	for i := range a.w.record.Mounts {
		m := &a.w.record.Mounts[i]
		if len(m.Created) == 0 {
			continue
		}
		left, err := a.machine.RemoveTarget(m.Plan.Path, m.Created)
		if err != nil {
			a.log.Debug("mount target left behind", "mount_path", m.Plan.Path, "left", left, "error", err, daemon.EventID(eventLeftover))
		}
		m.Created = left
	}
}
