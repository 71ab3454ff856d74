package clientmount

import (
	"context"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/volume"
)

// handover lets an object that was deleted and made again take over what its
// predecessor left mounted, and keeps that apart from the unmounting of orphans:
// a mount that a living object relies on must not be taken away as an orphan.
type handover struct {
	mu      sync.Mutex
	undoing map[string]chan struct{} // uid of records that are being undone; closed at the end
}

// adopt moves into our record what records of other, vanished objects tell of
// the same storage at the same path. One that is being undone is waited for.
func (a *attempt) adopt(plans []*volume.Plan) error {
	if a.w.adopted {
		return nil
	}
	h := &a.handover
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		other, m, p := a.predecessor(plans)
		if other == nil {
			a.w.adopted = true
			return nil
		}
		if busy := h.undoing[other.UID]; busy != nil {
			h.mu.Unlock()
			err := waitClosed(a.waits, busy)
			h.mu.Lock()
			if err != nil {
				return errSuperseded
			}
			continue
		}
		mine := a.w.record.at(p.Path)
		mine.Created = union(m.Created, mine.Created)
		if mine.Mounted == nil {
			mine.Mounted = m.Mounted
		}
		// Ours first: a crash in between leaves the mount in both, not in none.
		if err := a.records.Save(a.w.record); err != nil {
			return err
		}
		m.Unmounted = true
		if err := a.releaseRecord(other); err != nil {
			return err
		}
		a.log.Info("took over what an earlier ClientMount left mounted", "mount_path", p.Path, "predecessor", other.Name, daemon.EventID(eventOrphan))
	}
}

// predecessor finds a record of an object that no longer exists, its mount and
// our plan for the same.
func (a *attempt) predecessor(plans []*volume.Plan) (*Record, *MountRecord, *volume.Plan) {
	records, _ := a.records.List() // what cannot be read is reported at the start
	for _, other := range records {
		if other.UID == string(a.cm.UID) || a.alive(other) {
			continue
		}
		for _, p := range plans {
			if p == nil {
				continue
			}
			if m := other.at(p.Path); m != nil && !m.Unmounted && samePlace(&m.Plan, p) {
				return other, m, p
			}
		}
	}
	return nil, nil, nil
}

// releaseRecord saves a record, or removes it when nothing is left to undo.
func (r *reconciler) releaseRecord(rec *Record) error {
	if rec.pending() {
		return r.records.Save(rec)
	}
	if err := r.records.Remove(rec.UID); err != nil {
		return err
	}
	if r.released != nil {
		r.released(rec.UID)
	}
	return nil
}

// beginUndo claims a record for its undoing and returns it as it is now: a
// living object may have taken over some of it. It is nil when nothing is left.
func (r *reconciler) beginUndo(uid string) (rec *Record, end func(), err error) {
	h := &r.handover
	h.mu.Lock()
	defer h.mu.Unlock()
	if rec, err = r.records.Load(uid); err != nil || rec == nil {
		return nil, func() {}, err
	}
	done := make(chan struct{})
	if h.undoing == nil {
		h.undoing = map[string]chan struct{}{}
	}
	h.undoing[uid] = done
	return rec, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.undoing, uid)
		close(done)
	}, nil
}

func waitClosed(ctx context.Context, ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
