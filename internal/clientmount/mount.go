package clientmount

import (
	"context"
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

// mounted brings all mounts up in their order. One that fails does not keep
// the others from being tried; the first error is the one that is reported.
func (a *attempt) mounted() result {
	status := a.baseStatus(dws.Mounted)
	// Where an unmount had started when the wish turned back, no reader may see
	// the old ready:true until the mount is whole again.
	if err := a.withdraw(status, a.halfUnmounted); err != nil {
		return a.apiFailure("cannot write the status", err)
	}

	plans, first := a.plans(a.plan)
	if first != nil && plans == nil {
		switch {
		case unanswered(first):
			// The mounts are as they are; to call them failed would be a lie.
			return a.apiFailure("cannot get the storage profile", first)
		case allReady(status) && a.recordedPlans() != nil:
			// What is mounted and ready stays so when the profile goes.
			a.log.Warn("the storage profile of a ready mount is not available, going by the record", "error", first, daemon.EventID(eventRecord))
			plans, first = a.recordedPlans(), nil
		default:
			return a.finish(resetStatus(status, dws.Mounted), failed(first))
		}
	}
	if err := a.reserve(plans); err != nil {
		return a.finish(resetStatus(status, dws.Mounted), failed(dws.WrapError(dws.Major, "", err)))
	}
	// Not before it is known that there is something to do: an object that
	// fails for want of its profile costs one request less.
	if err := a.hold(); err != nil {
		return a.apiFailure("cannot add the finalizer", err)
	}
	// Nor where the object asks for something else than what is recorded.
	if err := a.withdraw(status, func(i int) bool { return a.isNew(plans[i]) }); err != nil {
		return a.apiFailure("cannot write the status", err)
	}
	a.startProgress(dws.Mounted)
	if err := a.prepareRecord(plans, status); err != nil {
		return a.finish(status, failed(dws.WrapError(dws.Major, "", err)))
	}
	inTheWay, err := a.dropObsolete(plans)
	if errors.Is(err, errSuperseded) {
		return a.interrupted(status)
	}
	first = keep(first, err)
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
		if errors.Is(err, errSuperseded) {
			return a.interrupted(status)
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
	failpoint.At("mount/done")
	if err := a.save(a.w.record); err != nil {
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

// reserve claims the paths of the plans. Another ClientMount's path is refused;
// a leftover of one that no longer exists counts only while it is mounted.
func (a *attempt) reserve(plans []*plan.Plan) error {
	uid := string(a.cm.UID)
	for {
		err := a.registry.reserve(uid, a.cm.Name, plans)
		c := (*conflictError)(nil)
		if !errors.As(err, &c) || a.registry.alive(c.uid, c.other) {
			return err
		}
		c.gone = true
		table, merr := a.machine.MountsOn(c.otherPath)
		if merr != nil || len(table) > 0 {
			return err
		}
		if done, uerr := a.records.update(c.uid, func(r *Record) {
			if m := r.at(c.otherPath); m != nil {
				m.Unmounted = true
			}
		}); uerr != nil {
			return err
		} else if done && a.released != nil {
			a.released(c.uid)
		}
		a.registry.forget(c.uid, c.otherPath)
	}
}

// mountOne mounts one entry, in turn with other users of its volume, and
// returns the time spent in commands.
func (a *attempt) mountOne(p *plan.Plan, m *MountRecord) (time.Duration, error) {
	uid := string(a.cm.UID)
	done, err := a.registry.sequence(a.waits, p)
	if err != nil {
		return 0, errSuperseded
	}
	defer done()
	here, _ := a.registry.sharers(uid, p)
	if a.registry.inherit(uid, m) {
		if err := a.save(a.w.record); err != nil {
			return 0, dws.WrapError(dws.Major, "", err)
		}
	}
	a.takeOver(p, here)
	run := a.runnerFor(p, m, m.Ready)
	run.shared = len(here) > 0
	err = run.mount(a.ctx)
	return run.commands, err
}

// takeOver ends what deleted ClientMounts still claim at the plan's place: our
// record has inherited it, so it is no orphan any more. Their records hold up
// nothing if they cannot be written.
func (a *attempt) takeOver(p *plan.Plan, here []sharer) {
	for _, s := range here {
		if s.alive {
			continue
		}
		done, err := a.records.update(s.uid, func(r *Record) {
			if m := r.at(p.Path); m != nil {
				m.Unmounted = true
			}
		})
		if err != nil {
			a.log.Warn("cannot update the record of a deleted ClientMount whose mount is taken over; continuing", "predecessor", s.name, "error", err, daemon.EventID(eventRecord))
			continue
		}
		a.registry.forget(s.uid, p.Path)
		if done && a.released != nil {
			a.released(s.uid)
		}
		a.log.Info("took over what an earlier ClientMount left mounted", "mount_path", p.Path, "predecessor", s.name, daemon.EventID(eventOrphan))
	}
}

// hold puts our finalizer on the object, so that it stays until we have
// unmounted. Once is enough: who takes it off gave up on this node.
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

// plans fetches the profile and makes one plan per mount. A nil plan stands
// for a mount that cannot be planned; a nil slice means none can be. The error
// is the first one.
func (a *attempt) plans(o plan.Options) ([]*plan.Plan, error) {
	profile, err := a.profile()
	if err != nil {
		return nil, err
	}
	var first error
	plans := make([]*plan.Plan, len(a.cm.Spec.Mounts))
	for i := range plans {
		p, err := a.planOne(o, plans[:i], func(o plan.Options) (*plan.Plan, error) { return plan.ForMount(a.cm, i, profile, o) })
		if errors.Is(err, plan.ErrOutsideRoots) && a.recorded(i, nil).isMounted() {
			// It was mounted before the site changed its roots; a job is using it.
			anywhere := o
			anywhere.Roots = nil
			if q, qerr := a.planOne(anywhere, plans[:i], func(o plan.Options) (*plan.Plan, error) { return plan.ForMount(a.cm, i, profile, o) }); qerr == nil && samePlace(q, &a.recorded(i, nil).Plan) {
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
// recorded is not looked at again, because a file system that does not answer
// may be mounted there; nor is what lies below an outer mount, where users make
// the links.
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
	if a.registry.covered(string(a.cm.UID), path) {
		return path, nil // refused anyway, and not to be looked at for the same reason
	}
	return a.machine.ResolveTarget(path)
}

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
		case samePlace(&m.Plan, p):
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

// save writes the record; the registry follows it.
func (r *reconciler) save(rec *Record) error {
	r.registry.keep(rec.UID, rec)
	return r.records.Save(rec)
}

// dropObsolete undoes recorded mounts that the object no longer asks for, or
// asks for from another device, last one first. Those that could not be undone
// are left in the way of what would be mounted at, above or below their paths.
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
		unplanned := want == nil && hasNil(plans) // may be the one that could not be planned
		if (want != nil && samePlace(&m.Plan, want)) || unplanned {
			kept = append([]MountRecord{*m}, kept...)
			continue
		}
		changed = true
		if !m.Unmounted {
			old := m.Plan
			if _, _, err := a.unmountOne(&old, m); err != nil {
				if errors.Is(err, errSuperseded) {
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

func (a *attempt) runnerFor(p *plan.Plan, rec *MountRecord, ready bool) *runner {
	r := a.runnerOf(a.ctx, a.log, string(a.cm.UID), p)
	r.rec, r.save, r.waits, r.ready = rec, func() error { return a.save(a.w.record) }, a.waits, ready
	return r
}

// recordedPlans returns the plans of a record in which every mount of the
// object is whole, in their order, or nil.
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

// withdraw takes back the ready:true of the entries for which it is no longer
// true.
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
	return a.publish(status)
}

// halfUnmounted tells whether an unmount of entry i has begun, or ended, that no
// status tells of.
func (a *attempt) halfUnmounted(i int) bool {
	return a.w.record != nil && slices.ContainsFunc(a.w.record.Mounts, func(m MountRecord) bool {
		return m.Plan.Index == i && (m.Unmounting || m.Unmounted)
	})
}

// isNew tells whether a plan is about something else than what the record lists
// at its path. Without a record, the object says what is mounted.
func (a *attempt) isNew(p *plan.Plan) bool {
	if p == nil || a.w.record == nil {
		return false
	}
	m := a.w.record.at(p.Path)
	return m == nil || !samePlace(&m.Plan, p)
}

// interrupted ends an attempt between two steps. When the daemon stops, what
// is known goes into the status; when the object changed, the next attempt is
// about to begin and will write its own.
func (a *attempt) interrupted(status *dws.ClientMountStatus) result {
	if !a.stopping() {
		a.progress.end()
		return result{}
	}
	a.progress.end()
	if a.w.status != nil && slices.Equal(a.w.status.Mounts, status.Mounts) {
		return result{} // an error that is published stays true
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(a.ctx), 5*time.Second)
	defer cancel()
	a.ctx = ctx
	return a.finish(status, nil)
}

// samePlace reports whether two plans are about the same storage at the same
// path, so that one can continue what the other started.
func samePlace(a, b *plan.Plan) bool {
	return a.Path == b.Path && a.Type == b.Type && a.Volume() == b.Volume()
}

func hasNil(plans []*plan.Plan) bool {
	for _, p := range plans {
		if p == nil {
			return true
		}
	}
	return false
}

func keep(first, err error) error {
	if first != nil {
		return first
	}
	return err
}

// mount runs the mount sequence. The result is nil, errSuperseded or a
// *dws.ResourceError whose text starts with the contract's step text.
func (r *runner) mount(ctx context.Context) error {
	r.phase = "mount"
	steps := r.plan.Mount
	retries := 0
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		if r.stop() {
			return errSuperseded
		}
		if s.Hook && r.ready {
			continue
		}
		err := r.step(ctx, s)
		if err == nil {
			continue
		}
		if errors.Is(err, errSuperseded) {
			return err
		}
		if activation(s.Kind) && !hangs(err) {
			again, err := r.afterActivationFailure(ctx, err, &retries)
			if errors.Is(err, errSuperseded) {
				return err
			}
			if again {
				i = firstActivation(steps) - 1
				continue
			}
			return dws.WrapError(dws.Major, s.Fail, err)
		}
		return dws.WrapError(dws.Major, s.Fail, err)
	}
	return nil
}
