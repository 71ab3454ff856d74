package clientmount

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/volume"
)

// mounted brings all mounts up in their order. One that fails does not keep
// the others from being tried; the first error is the one that is reported
// (contract clientmountd.md 4.2).
func (a *attempt) mounted() result {
	status := a.baseStatus(dws.Mounted)
	if a.halfUnmounted() {
		// An unmount had begun when the wish turned back. Until the mounts
		// are whole again nobody may read the old ready:true.
		status = resetStatus(status, dws.Mounted)
		if err := a.publish(status); err != nil {
			return a.apiFailure("cannot write the status", err)
		}
	}

	plans, first := a.plans()
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
	// Not before it is known that there is something to do: an object that
	// fails for want of its profile costs one request less.
	if err := a.hold(); err != nil {
		return a.apiFailure("cannot add the finalizer", err)
	}
	a.startProgress(dws.Mounted)
	if err := a.prepareRecord(plans); err != nil {
		return a.finish(status, failed(dws.WrapError(dws.Major, "", err)))
	}
	if err := a.adopt(plans); err != nil {
		if errors.Is(err, errSuperseded) {
			return a.interrupted(status)
		}
		return a.finish(status, failed(dws.WrapError(dws.Major, "", err)))
	}
	if err := a.dropObsolete(plans); err != nil {
		if errors.Is(err, errSuperseded) {
			return a.interrupted(status)
		}
		first = keep(first, err)
	}
	for i, p := range plans {
		if p == nil {
			status.Mounts[i].Ready = false
			continue
		}
		before := status.Mounts[i].Ready
		began := time.Now()
		run := a.runner(p, before)
		err := run.mount(a.ctx)
		a.commands += run.commands
		if errors.Is(err, errSuperseded) {
			return a.interrupted(status)
		}
		status.Mounts[i].Ready = err == nil
		if err != nil {
			a.log.Debug("mount failed", "mount_path", p.Path, "error", err, daemon.EventID(eventFailed))
			first = keep(first, err)
			continue
		}
		a.serversFile(p)
		if run.rec.Ready = true; !before {
			a.log.Info("mounted file system", "mount_path", p.Path, "type", p.Type, "device", p.Device,
				"duration", time.Since(began), "commands", run.commands, daemon.EventID(eventMounted))
		}
	}
	failpoint("mount/done")
	if err := a.records.Save(a.w.record); err != nil {
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
func (a *attempt) plans() ([]*volume.Plan, error) {
	profile, err := a.profile()
	if err != nil {
		return nil, err
	}
	var first error
	plans := make([]*volume.Plan, len(a.cm.Spec.Mounts))
	for i := range plans {
		p, err := volume.ForMount(a.cm, i, profile, a.plan)
		if err != nil {
			first = keep(first, err)
			continue
		}
		plans[i] = p
	}
	if first == nil {
		if err := volume.CheckPlans(plans); err != nil {
			return nil, err
		}
	}
	return plans, first
}

func (a *attempt) profile() (*nnf.StorageProfile, error) {
	const text = "unable to get file system information"
	namespace, name, err := volume.ProfileRef(a.cm)
	if err != nil {
		return nil, dws.WrapError(dws.Minor, text, err)
	}
	began := time.Now()
	p, err := a.reconciler.remote.profile(a.ctx, namespace, name, !a.w.mayShare)
	a.meter.since(began) // the read itself may belong to another attempt
	if err != nil {
		return nil, dws.WrapError(dws.Major, text, err)
	}
	if err := volume.CheckProfile(p); err != nil {
		return nil, dws.WrapError(dws.Minor, text, err)
	}
	return p, nil
}

// prepareRecord writes down what is about to be done, before the first effect.
func (a *attempt) prepareRecord(plans []*volume.Plan) error {
	if a.w.record == nil {
		a.w.record = newRecord(a.cm, time.Now())
	}
	rec := a.w.record
	for _, p := range plans {
		if p == nil {
			continue
		}
		switch m := rec.at(p.Path); {
		case m == nil:
			rec.Mounts = append(rec.Mounts, MountRecord{Plan: *p})
		case m.Unmounted:
			*m = MountRecord{Plan: *p, Created: m.Created}
		case samePlace(&m.Plan, p):
			m.Plan, m.Unmounting = *p, false
		}
	}
	return a.records.Save(rec)
}

// dropObsolete undoes recorded mounts that the object no longer asks for, or
// asks for from another device, last one first.
func (a *attempt) dropObsolete(plans []*volume.Plan) error {
	rec := a.w.record
	var kept []MountRecord
	var first error
	changed := false
	for i := len(rec.Mounts) - 1; i >= 0; i-- {
		m := &rec.Mounts[i]
		var want *volume.Plan
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
			run := a.runnerFor(&old, m, false)
			if err := run.unmount(a.ctx); err != nil {
				if errors.Is(err, errSuperseded) {
					return err
				}
				first = keep(first, err)
				kept = append([]MountRecord{*m}, kept...)
				continue
			}
			failpoint("obsolete/undone")
			a.log.Info("unmounted file system that is no longer asked for", "mount_path", old.Path, daemon.EventID(eventUnmounted))
		}
		if want != nil {
			kept = append([]MountRecord{{Plan: *want, Created: m.Created}}, kept...)
		}
	}
	if !changed {
		return nil // and the record is as it was saved
	}
	rec.Mounts = kept
	if first != nil {
		return first
	}
	return a.records.Save(rec)
}

func (a *attempt) runner(p *volume.Plan, ready bool) *runner {
	return a.runnerFor(p, a.w.record.at(p.Path), ready)
}

func (a *attempt) runnerFor(p *volume.Plan, rec *MountRecord, ready bool) *runner {
	return &runner{
		machine: a.machine, limits: a.limits(), log: a.log.With("mount_path", p.Path), stuck: a.stuck,
		plan: p, rec: rec, save: func() error { return a.records.Save(a.w.record) },
		waits: a.waits, ready: ready, mark: markOf(string(a.cm.UID)),
	}
}

// recordedPlans returns the plans of a record in which every mount of the
// object is whole, in their order, or nil.
func (a *attempt) recordedPlans() []*volume.Plan {
	plans := make([]*volume.Plan, len(a.cm.Spec.Mounts))
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

// halfUnmounted tells whether an unmount has begun, or ended, that no status
// tells of.
func (a *attempt) halfUnmounted() bool {
	return a.w.record != nil && slices.ContainsFunc(a.w.record.Mounts, func(m MountRecord) bool { return m.Unmounting || m.Unmounted })
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

func (a *attempt) serversFile(p *volume.Plan) {
	if !a.reconciler.serversFile || p.Type != dws.TypeLustre || a.cm.Label(api.LabelOwnerKind) != "NnfStorage" {
		return
	}
	if err := a.writeServersFile(p); err != nil {
		a.log.Warn("could not write the Lustre servers file", "mount_path", p.Path, "error", err, daemon.EventID(eventServers))
	}
}

// samePlace tells whether two plans are about the same storage at the same
// path, so that one can continue what the other began.
func samePlace(a, b *volume.Plan) bool {
	return a.Path == b.Path && a.Type == b.Type && a.VG == b.VG && a.LV == b.LV && a.Lustre == b.Lustre
}

func hasNil(plans []*volume.Plan) bool {
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
