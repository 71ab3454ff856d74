package clientmount

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// mounted mounts all entries in their order. If an entry fails, mounted continues with
// the next one; it reports the first error.
func (a *attempt) mounted() result {
	status := a.baseStatus(dws.Mounted)
	// If an unmount had started before the desired state changed back, the old
	// ready:true must not be visible until the mount is complete again.
	if err := a.withdrawReady(status, a.halfUnmounted); err != nil {
		return a.apiFailure("cannot write the status", err)
	}

	plans, first := a.plans(a.plan)
	if first != nil && plans == nil {
		switch {
		case unanswered(first):
			// The mounts have not changed, so they are not reported as failed.
			return a.apiFailure("cannot get the storage profile", first)
		case allReady(status) && a.recordedPlans() != nil:
			// A ready mount stays ready without its profile.
			a.log.Warn("the storage profile of a ready mount is not available; using the recorded plan", "error", first, daemon.EventID(eventRecord))
			plans, first = a.recordedPlans(), nil
		default:
			return a.finish(a.noneReady(dws.Mounted), failed(first))
		}
	}
	if err := a.reserve(plans); err != nil {
		return a.refused(plans, status, err)
	}
	// The finalizer comes only now, because an object without a profile does not
	// need the request.
	if err := a.ensureFinalizer(); err != nil {
		return a.apiFailure("cannot add the finalizer", err)
	}
	// The same applies if the object lists something other than the record.
	if err := a.withdrawReady(status, func(i int) bool { return a.isNew(plans[i]) }); err != nil {
		return a.apiFailure("cannot write the status", err)
	}
	a.startProgress(dws.Mounted)
	if err := a.prepareRecord(plans, status); err != nil {
		return a.finish(status, failed(dws.WrapError(dws.Major, "", err)))
	}
	err := a.mountAll(plans, status)
	if errors.Is(err, errInterrupted) {
		return a.interrupted(status)
	}
	first = keep(first, err)
	failpoint.At("mount/done")
	if err := a.saveRecord(); err != nil {
		first = keep(first, dws.WrapError(dws.Major, "", err))
	}
	if first != nil {
		return a.finish(status, failed(first))
	}
	res := a.finish(status, nil)
	a.log.Debug("ClientMount is mounted", "duration", time.Since(a.started), "commands", a.commands, "requests", a.meter.spent,
		"overhead", time.Since(a.started)-a.commands-a.meter.spent, daemon.EventID(eventMounted))
	return res
}

// refused ends an attempt for paths that another ClientMount has. It unmounts what the object no longer
// lists: otherwise that would stay as long as the conflict lasts, and refuse its path to others. Two
// objects that exchange their paths would wait for each other forever.
func (a *attempt) refused(plans []*plan.Plan, status *dws.ClientMountStatus, cause error) result {
	first := error(dws.WrapError(dws.Major, "", cause))
	if a.w.record != nil {
		if err := a.withdrawReady(status, func(i int) bool { return a.isNew(plans[i]) }); err != nil {
			return a.apiFailure("cannot write the status", err)
		}
		_, err := a.dropObsolete(plans)
		if errors.Is(err, errInterrupted) {
			return a.interrupted(status)
		}
		first = keep(first, err)
	}
	return a.finish(a.noneReady(dws.Mounted), failed(first))
}

// plans reads the profile and returns one plan per mount. The plan of a mount that
// cannot be planned is nil. The slice is nil if there is no usable profile or the paths
// of the plans collide. The error is the first one.
func (a *attempt) plans(o plan.Options) ([]*plan.Plan, error) {
	profile, err := a.profile()
	if err != nil {
		return nil, err
	}
	var first error
	plans := make([]*plan.Plan, len(a.cm.Spec.Mounts))
	for i := range plans {
		forMount := func(o plan.Options) (*plan.Plan, error) { return plan.ForMount(a.cm, i, profile, o) }
		p, err := a.planOne(o, plans[:i], forMount)
		if errors.Is(err, plan.ErrOutsideRoots) && a.recorded(i, nil).isMounted() {
			// It was mounted before the site changed mount.roots, and a job uses it.
			anywhere := o
			anywhere.Roots = nil
			if q, qerr := a.planOne(anywhere, plans[:i], forMount); qerr == nil && q.SamePlace(&a.recorded(i, nil).Plan) {
				p, err = q, nil
			}
		}
		if err != nil {
			first = keep(first, err)
			continue
		}
		plans[i] = p
	}
	if err := plan.CheckPlans(plans); err != nil {
		return nil, keep(first, err)
	}
	return plans, first
}

// planOne returns a plan in whose path symbolic links are resolved. outer are the plans
// of earlier entries.
func (a *attempt) planOne(o plan.Options, outer []*plan.Plan, forMount func(plan.Options) (*plan.Plan, error)) (*plan.Plan, error) {
	p, err := forMount(o)
	if err != nil || o.Mode != "" && o.Mode != plan.ModeReal {
		return p, err
	}
	real, err := a.realPath(p.Path, outer)
	if err != nil {
		return nil, dws.WrapError(dws.Major, "unable to mount file system", fmt.Errorf("could not create the mount target: %w", err))
	}
	if real == p.Path {
		return p, nil
	}
	o.Real = map[string]string{p.Path: real}
	return forMount(o)
}

// realPath resolves the symbolic links of a mount path. It does not resolve a recorded
// path again, because a file system that does not respond may be mounted there. Nor
// does it resolve a path below an outer mount, where users can create links.
func (a *attempt) realPath(path string, outer []*plan.Plan) (string, error) {
	if a.w.record != nil {
		for i := range a.w.record.Mounts {
			if p := &a.w.record.Mounts[i].Plan; p.RequestedPath() == path {
				return p.Path, nil
			}
		}
	}
	for _, p := range slices.Backward(outer) {
		if p == nil {
			continue
		}
		if rest, ok := strings.CutPrefix(path, p.RequestedPath()+"/"); ok {
			return p.Path + "/" + rest, nil
		}
	}
	if a.registry.covered(a.uid, path) {
		return path, nil // reserve refuses it; resolving it could block
	}
	return a.machine.ResolveTarget(path)
}

// profile returns the storage profile of the object.
func (a *attempt) profile() (*nnf.StorageProfile, error) {
	const text = "unable to get file system information"
	namespace, name, err := plan.ProfileRef(a.cm)
	if err != nil {
		return nil, dws.WrapError(dws.Minor, text, err)
	}
	began := time.Now()
	p, err := a.reconciler.remote.profile(a.ctx, namespace, name, !a.w.mayShare)
	a.meter.add(mountstate.NameRead(profileKind), began, err) // the read itself may belong to another attempt
	if err != nil {
		return nil, dws.WrapError(dws.Major, text, err)
	}
	if err := plan.CheckProfile(p); err != nil {
		return nil, dws.WrapError(dws.Minor, text, err)
	}
	return p, nil
}

// recordedPlans returns the recorded plans of the object's mounts, in their order, if
// all mounts are ready. Otherwise it returns nil.
func (a *attempt) recordedPlans() []*plan.Plan {
	plans := make([]*plan.Plan, len(a.cm.Spec.Mounts))
	for i := range plans {
		m := a.recorded(i, nil)
		if m == nil || !m.Ready {
			return nil
		}
		plan := m.Plan
		plans[i] = &plan
	}
	return plans
}

// recorded returns the record of mount i: by path if there is a plan, otherwise by its
// index.
func (a *attempt) recorded(i int, p *plan.Plan) *MountRecord {
	if a.w.record == nil {
		return nil
	}
	if p != nil {
		return a.w.record.at(p.Path)
	}
	for j := range a.w.record.Mounts {
		if a.w.record.Mounts[j].Plan.Index == i {
			return &a.w.record.Mounts[j]
		}
	}
	return nil
}

// halfUnmounted reports whether an unmount of entry i has started or finished without
// being reported in the status.
func (a *attempt) halfUnmounted(i int) bool {
	return a.w.record != nil && slices.ContainsFunc(a.w.record.Mounts, func(m MountRecord) bool {
		return m.Plan.Index == i && (m.Unmounting || m.Unmounted)
	})
}

// isNew reports whether a plan differs from the record at its path. Without a record it
// returns false, because the status of the object then shows what is mounted.
func (a *attempt) isNew(p *plan.Plan) bool {
	if p == nil || a.w.record == nil {
		return false
	}
	m := a.w.record.at(p.Path)
	return m == nil || !m.Plan.SamePlace(p)
}

// reserve claims the paths of the plans. It refuses the path of another ClientMount. A
// claim of a deleted ClientMount is a conflict only while its file system is mounted.
func (a *attempt) reserve(plans []*plan.Plan) error {
	for {
		err := a.registry.reserve(a.uid, a.cm.Name, plans)
		c := (*conflictError)(nil)
		if !errors.As(err, &c) || a.registry.alive(c.uid, c.other) {
			return err
		}
		c.gone = true
		table, merr := a.machine.MountsOn(c.otherPath)
		if merr != nil || len(table) > 0 {
			return err
		}
		if a.release(c.uid, c.otherPath) != nil {
			return err
		}
	}
}

// ensureFinalizer adds our finalizer to the object, so that the object stays until the unmount is
// complete. It adds the finalizer only once: an administrator who removes it has given
// up this node.
func (a *attempt) ensureFinalizer() error {
	if a.w.held {
		return nil
	}
	if err := a.remote.addFinalizer(a.ctx, a.cm); err != nil {
		return err
	}
	a.w.held = true
	return nil
}

// prepareRecord saves the record before the first effect. For a mount without a record
// it takes the value of ready from the object.
func (a *attempt) prepareRecord(plans []*plan.Plan, status *dws.ClientMountStatus) error {
	rec := a.w.record.clone()
	if rec == nil {
		rec = newRecord(a.cm, a.w.created)
	}
	rec.Unplanned = a.unplanned(func(i int) bool { return plans[i] == nil && a.recorded(i, nil) == nil })
	now := time.Now()
	for i, p := range plans {
		if p == nil {
			continue
		}
		switch m := rec.at(p.Path); {
		case m == nil:
			rec.Mounts = append(rec.Mounts, MountRecord{Plan: *p, Ready: status.Mounts[i].Ready, Since: now})
		case m.Unmounted:
			*m = MountRecord{Plan: *p, Created: m.Created, Since: now}
		case m.Plan.SamePlace(p):
			if m.Unmounting {
				m.Since, m.Failure, m.Holders = now, nil, nil
			}
			m.Ready = m.Ready && !m.Unmounting
			m.Plan, m.Unmounting = *p, false
		}
	}
	if err := a.save(rec); err != nil {
		a.registry.keep(rec.UID, a.w.record) // nothing was started
		return err
	}
	a.w.record = rec
	return nil
}

// mountAll unmounts recorded mounts that the object no longer lists, and mounts the
// others. It updates status and returns the first error, or errInterrupted.
func (a *attempt) mountAll(plans []*plan.Plan, status *dws.ClientMountStatus) error {
	inTheWay, first := a.dropObsolete(plans)
	if errors.Is(first, errInterrupted) {
		return first
	}
	for i, p := range plans {
		if p == nil || slices.ContainsFunc(inTheWay, func(old claim) bool { c := claimOf(p); return old.hides(&c) }) {
			status.Mounts[i].Ready = false
			continue
		}
		m := a.w.record.at(p.Path)
		before := m.Ready
		began := time.Now()
		commands, err := a.mountOne(p, m)
		a.commands += commands
		if errors.Is(err, errInterrupted) {
			return err
		}
		m.Ready, status.Mounts[i].Ready = err == nil, err == nil
		if m.Ready != before {
			m.Since = time.Now()
		}
		if err != nil {
			a.log.Debug("mount failed", "mount_path", p.Path, "error", err, daemon.EventID(eventFailed))
			first = keep(first, err)
			continue
		}
		a.serversFile(p)
		if !before {
			a.log.Info("mounted file system", "mount_path", p.Path, "type", p.Type, "device", p.Device,
				"duration", time.Since(began), "commands", commands, daemon.EventID(eventMounted))
		}
	}
	return first
}

// dropObsolete unmounts recorded mounts that the object no longer lists, or lists with
// another device, in reverse order. inTheWay are those that could not be unmounted:
// nothing can be mounted at, above or below their paths.
func (a *attempt) dropObsolete(plans []*plan.Plan) (inTheWay []claim, _ error) {
	rec := a.w.record
	var kept []MountRecord
	var first error
	changed := false
	for i := len(rec.Mounts) - 1; i >= 0; i-- {
		m := &rec.Mounts[i]
		var want *plan.Plan
		for _, p := range plans {
			if p != nil && p.Path == m.Plan.Path {
				want = p
			}
		}
		unplanned := want == nil && slices.Contains(plans, nil) // it may belong to the entry that could not be planned
		if (want != nil && m.Plan.SamePlace(want)) || unplanned {
			kept = append([]MountRecord{*m}, kept...)
			continue
		}
		changed = true
		if !m.Unmounted {
			old := m.Plan
			if _, _, err := a.unmountOne(&old, m); err != nil {
				if errors.Is(err, errInterrupted) {
					return nil, err
				}
				first = keep(first, err)
				inTheWay = append(inTheWay, claimOf(&old))
				kept = append([]MountRecord{*m}, kept...)
				continue
			}
			failpoint.At("obsolete/undone")
			*m = MountRecord{Plan: old, Created: m.Created, Unmounted: true, Since: time.Now()}
			a.log.Info("unmounted file system that the ClientMount no longer lists", "mount_path", old.Path, daemon.EventID(eventUnmounted))
			if want != nil {
				// Another object may have claimed the path since.
				if err := a.reserve([]*plan.Plan{want}); err != nil {
					first = keep(first, dws.WrapError(dws.Major, "", err))
					inTheWay = append(inTheWay, claimOf(want))
				} else {
					*m = MountRecord{Plan: *want, Created: m.Created, Since: time.Now()}
					kept = append([]MountRecord{*m}, kept...)
				}
			}
			a.saveUndone() // its hooks must not run again, and the volume is released
		}
	}
	if !changed {
		return nil, nil // the saved record is up to date
	}
	rec.Mounts = kept
	return inTheWay, keep(first, a.save(rec))
}

// mountOne mounts one entry while it holds the lock of the volume, and returns the time
// spent in commands.
func (a *attempt) mountOne(p *plan.Plan, m *MountRecord) (time.Duration, error) {
	done, err := a.registry.sequence(a.steps, p)
	if err != nil {
		return 0, errInterrupted
	}
	defer done()
	here, _ := a.registry.sharers(a.uid, p)
	if a.registry.inherit(a.uid, m) {
		if err := a.saveRecord(); err != nil {
			return 0, dws.WrapError(dws.Major, "", err)
		}
	}
	a.takeOver(p, here)
	run := a.newRunner(p, m, a.saveRecord, a.note)
	run.ready, run.shared = m.Ready, len(here) > 0
	err = run.mount()
	return run.commands, err
}

// takeOver releases the claims of deleted ClientMounts at the plan's path: our record
// has inherited the mount, so it is no longer an orphan. If a record cannot be
// written, takeOver only logs the error.
func (a *attempt) takeOver(p *plan.Plan, here []sharer) {
	for _, s := range here {
		if s.alive {
			continue
		}
		if err := a.release(s.uid, p.Path); err != nil {
			a.log.Warn("cannot update the record of a deleted ClientMount after taking over its mount; continuing", "predecessor", s.name, "error", err, daemon.EventID(eventRecord))
			continue
		}
		a.log.Info("took over the mount of a deleted ClientMount", "mount_path", p.Path, "predecessor", s.name, daemon.EventID(eventOrphan))
	}
}

// mount runs the mount sequence. The error is errInterrupted or a *dws.ResourceError
// whose text starts with the Fail text of the step.
func (r *runner) mount() error {
	r.phase = mountstate.PhaseMount
	steps := r.plan.Mount
	retries := 0
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		if r.interrupted() {
			return errInterrupted
		}
		if s.Hook && r.ready {
			continue
		}
		err := r.step(s)
		if err != nil && activation(s.Kind) && !hangs(err) && !errors.Is(err, errInterrupted) {
			began := time.Now()
			var again bool
			again, err = r.afterActivationFailure(err, &retries)
			if r.plan.Rescan {
				r.noteStep(r.plan.Path, mountstate.StepWait, mountstate.NameRescan, began, nil)
			}
			if again {
				i = slices.IndexFunc(steps, func(s plan.Step) bool { return activation(s.Kind) }) - 1
				continue
			}
		}
		if errors.Is(err, errInterrupted) {
			return err
		}
		if err != nil {
			return r.fails(s, err)
		}
	}
	r.rec.Failure, r.rec.Holders = nil, nil
	return nil
}

// fails records the failure of a step, and returns the error of the sequence.
func (r *runner) fails(s *plan.Step, err error) error {
	r.rec.Failure = newFailure(r.rec.Failure, failureKind(err), s.Name, err)
	if r.rec.Failure.Kind != mountstate.FailureBusy {
		r.rec.Holders = nil
	}
	return dws.WrapError(dws.Major, s.Fail, err)
}
