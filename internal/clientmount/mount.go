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
)

// mounted brings all mounts up in their order. If one fails the others are tried
// nevertheless; the first error is reported.
func (a *attempt) mounted() result {
	status := a.baseStatus(dws.Mounted)
	// If an unmount had started when the desired state changed back, no reader may
	// see the old ready:true until the mount is complete again.
	if err := a.withdraw(status, a.halfUnmounted); err != nil {
		return a.apiFailure("cannot write the status", err)
	}

	plans, first := a.plans(a.plan)
	if first != nil && plans == nil {
		switch {
		case unanswered(first):
			// The mounts are as they were, so they are not reported as failed.
			return a.apiFailure("cannot get the storage profile", first)
		case allReady(status) && a.recordedPlans() != nil:
			// What is mounted and ready stays so without its profile.
			a.log.Warn("the storage profile of a ready mount is not available, going by the record", "error", first, daemon.EventID(eventRecord))
			plans, first = a.recordedPlans(), nil
		default:
			return a.finish(a.noneReady(dws.Mounted), failed(first))
		}
	}
	if err := a.reserve(plans); err != nil {
		return a.finish(a.noneReady(dws.Mounted), failed(dws.WrapError(dws.Major, "", err)))
	}
	// Not before it is known that there is something to do: an object without a
	// profile costs one request less.
	if err := a.hold(); err != nil {
		return a.apiFailure("cannot add the finalizer", err)
	}
	// Nor may one see it if the object asks for something else than what is recorded.
	if err := a.withdraw(status, func(i int) bool { return a.isNew(plans[i]) }); err != nil {
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
	a.log.Debug("ClientMount is mounted", "duration", time.Since(a.began), "commands", a.commands, "requests", a.meter.spent,
		"overhead", time.Since(a.began)-a.commands-a.meter.spent, daemon.EventID(eventMounted))
	return res
}

// plans fetches the profile and makes one plan per mount. The plan of a mount that
// cannot be planned is nil; the slice is nil if there is no usable profile or the paths
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
			// It was mounted before the site changed its roots; a job is using it.
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

// planOne makes a plan and resolves the symbolic links in its path. outer are the
// plans of earlier entries.
func (a *attempt) planOne(o plan.Options, outer []*plan.Plan, forMount func(plan.Options) (*plan.Plan, error)) (*plan.Plan, error) {
	p, err := forMount(o)
	if err != nil || o.Mode != "" && o.Mode != plan.ModeReal {
		return p, err
	}
	real, err := a.realPath(p.Path, outer)
	if err != nil {
		return nil, dws.WrapError(dws.Major, "unable to mount file system", fmt.Errorf("could not make the mount target: %w", err))
	}
	if real == p.Path {
		return p, nil
	}
	o.Real = map[string]string{p.Path: real}
	return forMount(o)
}

// realPath returns a mount path without its symbolic links. A path that is
// recorded is not resolved again, because a file system that does not answer
// may be mounted there; nor is a path below an outer mount, where users make the
// links.
func (a *attempt) realPath(path string, outer []*plan.Plan) (string, error) {
	if a.w.record != nil {
		for i := range a.w.record.Mounts {
			if p := &a.w.record.Mounts[i].Plan; p.AskedPath() == path {
				return p.Path, nil
			}
		}
	}
	for _, p := range slices.Backward(outer) {
		if p == nil {
			continue
		}
		if rest, ok := strings.CutPrefix(path, p.AskedPath()+"/"); ok {
			return p.Path + "/" + rest, nil
		}
	}
	if a.registry.covered(a.uid, path) {
		return path, nil // refused anyway, and not resolved for the same reason
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
	a.meter.since(began) // the read itself may belong to another attempt
	if err != nil {
		return nil, dws.WrapError(dws.Major, text, err)
	}
	if err := plan.CheckProfile(p); err != nil {
		return nil, dws.WrapError(dws.Minor, text, err)
	}
	return p, nil
}

// recordedPlans returns the recorded plans of the object's mounts in their order if
// all of them are ready, else nil.
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

// recorded returns the record of mount i: by path if there is a plan, else by its
// place in the list.
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

// halfUnmounted reports whether an unmount of entry i has started, or ended, that no
// status reports.
func (a *attempt) halfUnmounted(i int) bool {
	return a.w.record != nil && slices.ContainsFunc(a.w.record.Mounts, func(m MountRecord) bool {
		return m.Plan.Index == i && (m.Unmounting || m.Unmounted)
	})
}

// isNew reports whether a plan is about something else than what the record lists
// at its path. Without a record, the status of the object says what is mounted.
func (a *attempt) isNew(p *plan.Plan) bool {
	if p == nil || a.w.record == nil {
		return false
	}
	m := a.w.record.at(p.Path)
	return m == nil || !m.Plan.SamePlace(p)
}

// reserve claims the paths of the plans. Another ClientMount's path is refused;
// a leftover of one that no longer exists counts only while it is mounted.
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

// hold puts our finalizer on the object, so that it stays until we have
// unmounted. It is put on once: an administrator who removes it has given up this
// node.
func (a *attempt) hold() error {
	if a.w.held {
		return nil
	}
	if err := a.remote.addFinalizer(a.ctx, a.cm); err != nil {
		return err
	}
	a.w.held = true
	return nil
}

// prepareRecord writes down what is about to be done, before the first effect.
// A mount without a record is as ready as the object says.
func (a *attempt) prepareRecord(plans []*plan.Plan, status *dws.ClientMountStatus) error {
	rec := a.w.record.clone()
	if rec == nil {
		rec = newRecord(a.cm, time.Now())
	}
	for i, p := range plans {
		if p == nil {
			continue
		}
		switch m := rec.at(p.Path); {
		case m == nil:
			rec.Mounts = append(rec.Mounts, MountRecord{Plan: *p, Ready: status.Mounts[i].Ready})
		case m.Unmounted:
			*m = MountRecord{Plan: *p, Created: m.Created}
		case m.Plan.SamePlace(p):
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

// mountAll undoes recorded mounts that are no longer asked for and mounts those that
// are. status is updated. The result is the first error, or errInterrupted.
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

// dropObsolete undoes recorded mounts that the object no longer asks for, or
// asks for from another device, last one first. Those that could not be undone
// are in the way of what would be mounted at, above or below their paths.
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
		unplanned := want == nil && slices.Contains(plans, nil) // may be the one that could not be planned
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
			*m = MountRecord{Plan: old, Created: m.Created, Unmounted: true}
			a.log.Info("unmounted file system that is no longer asked for", "mount_path", old.Path, daemon.EventID(eventUnmounted))
			if want != nil {
				// The path was free for a moment.
				if err := a.reserve([]*plan.Plan{want}); err != nil {
					first = keep(first, dws.WrapError(dws.Major, "", err))
					inTheWay = append(inTheWay, claimOf(want))
				} else {
					*m = MountRecord{Plan: *want, Created: m.Created}
					kept = append([]MountRecord{*m}, kept...)
				}
			}
			a.saveUndone() // its hooks must not run again, and its volume is free
		}
	}
	if !changed {
		return nil, nil // and the record is as it was saved
	}
	rec.Mounts = kept
	return inTheWay, keep(first, a.save(rec))
}

// mountOne mounts one entry, in turn with other users of its volume, and
// returns the time spent in commands.
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
	run := a.newRunner(p, m, a.saveRecord)
	run.ready, run.shared = m.Ready, len(here) > 0
	err = run.mount()
	return run.commands, err
}

// takeOver ends what deleted ClientMounts still claim at the plan's path: our
// record has inherited it, so it is no orphan any more. A record of theirs that
// cannot be written is only logged.
func (a *attempt) takeOver(p *plan.Plan, here []sharer) {
	for _, s := range here {
		if s.alive {
			continue
		}
		if err := a.release(s.uid, p.Path); err != nil {
			a.log.Warn("cannot update the record of a deleted ClientMount whose mount is taken over; continuing", "predecessor", s.name, "error", err, daemon.EventID(eventRecord))
			continue
		}
		a.log.Info("took over what an earlier ClientMount left mounted", "mount_path", p.Path, "predecessor", s.name, daemon.EventID(eventOrphan))
	}
}

// mount runs the mount sequence. The result is nil, errInterrupted or a
// *dws.ResourceError whose text starts with the Fail text of the step.
func (r *runner) mount() error {
	r.phase = "mount"
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
			var again bool
			if again, err = r.afterActivationFailure(err, &retries); again {
				i = slices.IndexFunc(steps, func(s plan.Step) bool { return activation(s.Kind) }) - 1
				continue
			}
		}
		if errors.Is(err, errInterrupted) {
			return err
		}
		if err != nil {
			return dws.WrapError(dws.Major, s.Fail, err)
		}
	}
	return nil
}
