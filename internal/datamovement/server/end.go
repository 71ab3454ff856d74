package server

import (
	"context"
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// deleteWait is how long Delete waits for the end of a cancelled movement: clients
// delete immediately after cancelling.
const deleteWait = 10 * time.Second

// own reads a movement from the API server and checks that it belongs to the caller.
func (s *Service) own(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uid string) (*nnf.DataMovement, *feed, error) {
	f, err := s.place(ctx, c, uid)
	if err != nil {
		return nil, nil, err
	}
	dm, err := s.read(ctx, c, w, f, uid)
	if err == nil {
		err = s.allowed(c, dm, w)
	}
	return dm, f, err
}

// Cancel requests the cancellation of a movement. It deletes a movement that the
// rabbit has not started, because the rabbit would never end it.
func (s *Service) Cancel(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uid string) error {
	if err := s.checkNames(c, w, uid); err != nil {
		return err
	}
	if _, ok := s.tombstone(c, w, uid); ok {
		return nil
	}
	dm, f, err := s.own(ctx, c, w, uid)
	if _, ok := s.tombstoneSince(c, w, uid, err); ok {
		return nil
	}
	if err != nil || datamovement.Completed(dm) {
		return err
	}
	return s.cancel(ctx, c, f, dm)
}

func (s *Service) cancel(ctx context.Context, c datamovement.Caller, f *feed, dm *nnf.DataMovement) error {
	if !dm.Spec.Cancel {
		var err error
		if dm, err = s.setCancel(ctx, f, dm); err != nil {
			return s.fault(c, dm.Name, err)
		}
		s.log.Info("data movement cancelled", "uid", c.UID, "pid", c.PID, "object", datamovement.Describe(dm), daemon.EventID(eventEnded))
	}
	if datamovement.Started(dm) || datamovement.Completed(dm) {
		return nil
	}
	s.tombstones.prepare(dm)
	if err := s.remove(ctx, dm); err != nil {
		s.tombstones.abandon(dm)
		return s.fault(c, dm.Name, err)
	}
	s.tombstones.confirm(dm)
	f.forget(dm.Name)
	f.look(dm.Name) // waiters find the tombstone
	return nil
}

// endCancel deletes a movement that was cancelled before its start and still exists, because the
// daemon was killed, or the API server failed, between the two requests of Cancel: the rabbit would
// never end it. If that fails, the next call for the movement tries again.
func (s *Service) endCancel(ctx context.Context, c datamovement.Caller, f *feed, dm *nnf.DataMovement) {
	open := dm.Spec.Cancel && !datamovement.Started(dm) && !datamovement.Completed(dm)
	if open && s.policy().Movement(c, dm, datamovement.WorkflowRef{}).Allowed() && s.tombstones.prepare(dm) {
		_ = s.cancel(ctx, c, f, dm) // logged; the state is still CANCELLING
	}
}

// setCancel sets spec.cancel of this object, and of no other object with its name.
func (s *Service) setCancel(ctx context.Context, f *feed, dm *nnf.DataMovement) (*nnf.DataMovement, error) {
	after, err := s.api.patch(ctx, dm, map[string]any{"cancel": true})
	switch {
	case kube.IsNotFound(err):
		f.forget(dm.Name)
		return dm, datamovement.MovementNotFound(dm.Name)
	case kube.IsConflict(err):
		return dm, datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_UNAVAILABLE, "failed to initiate cancel on dm node: %w", err)
	case err != nil:
		return dm, err
	}
	f.learn(after)
	return after, nil
}

// remove deletes this object, and no other object with its name. If another object has
// the name now, or no object has it, this one is already deleted, which is not an error.
func (s *Service) remove(ctx context.Context, dm *nnf.DataMovement) error {
	err := s.api.delete(ctx, dm)
	switch {
	case kube.IsConflict(err):
		s.tombstones.dropObject(dm) // the name belongs to the other object
	case err != nil && !kube.IsNotFound(err):
		return err
	default:
		s.quota.drop(dm)
	}
	return nil
}

// Delete deletes a movement that has ended.
func (s *Service) Delete(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uid string) error {
	if err := s.checkNames(c, w, uid); err != nil {
		return err
	}
	if _, ok := s.tombstone(c, w, uid); ok {
		s.tombstones.drop(uid)
		return nil
	}
	dm, f, err := s.own(ctx, c, w, uid)
	if _, ok := s.tombstoneSince(c, w, uid, err); ok {
		s.tombstones.drop(uid)
		return nil
	}
	if err != nil {
		return err
	}
	if dm.Spec.Cancel && !datamovement.Completed(dm) && datamovement.Started(dm) {
		if dm, err = s.awaitCancelled(ctx, c, w, f, uid); err != nil {
			return err
		}
	}
	if !datamovement.Completed(dm) && (!dm.Spec.Cancel || datamovement.Started(dm)) {
		return datamovement.StillActive(uid)
	}
	if err := s.remove(ctx, dm); err != nil {
		return s.fault(c, uid, err)
	}
	s.tombstones.dropObject(dm) // of a concurrent Cancel
	f.forget(uid)
	return nil
}

func (s *Service) awaitCancelled(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
	release, err := s.waiter(c, uid)
	if err != nil {
		return nil, err
	}
	defer release()
	defer f.follow()()
	dm, g, err := s.await(ctx, c, w, f, uid, deleteWait)
	if dm == nil && err == nil {
		return g.dm, nil
	}
	return dm, err
}

const (
	// tombstonesPerUser is larger than the default batch size, so that a whole batch
	// can be cancelled and then followed.
	tombstonesPerUser = 1024
	tombstoneTime     = time.Hour
)

// tombstones record data movements that were cancelled before their start. The rabbit
// never ends those, so the daemon deletes them immediately, and a status request
// reports that they were cancelled.
//
// A tombstone belongs to one object, by its UID. Another object can get the same name
// later, when a request is repeated with its key: its creation drops the tombstone.
// Each user has a separate table, so that no user can displace the tombstones of
// another.
//
// Tombstones are in memory only. Losing them is harmless: nothing was copied and
// nothing waits for them. After a restart, a status request reports that the movement
// does not exist, which also ends a wait.
type tombstones struct {
	mu    sync.Mutex
	users map[int64]map[types.UID]tombstone // by spec.userId
	names map[string]*nnf.DataMovement      // the last object with each name
	swept time.Time                         // when expired ones were last removed
}

type tombstone struct {
	dm *nnf.DataMovement
	at time.Time
	// prepared: the deletion of dm has been requested, but may fail. Until then it counts only
	// if dm does not exist.
	prepared bool
}

// confirm records that dm is deleted, after prepare.
func (g *tombstones) confirm(dm *nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	own := g.users[dm.Spec.UserID]
	if t, ok := own[dm.UID]; ok {
		t.prepared = false
		own[dm.UID] = t
	}
}

// abandon records that the deletion of dm has failed, after prepare.
func (g *tombstones) abandon(dm *nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users[dm.Spec.UserID][dm.UID].prepared {
		g.forget(dm)
	}
}

// prepare records that dm was cancelled and is about to be deleted. It keeps only the fields of
// dm that a response needs. It does not change an existing tombstone of dm, and reports whether
// there was none.
func (g *tombstones) prepare(dm *nnf.DataMovement) (first bool) {
	kept := &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: dm.Name, Namespace: dm.Namespace, UID: dm.UID, Labels: dm.Labels}}
	kept.Spec.UserID = dm.Spec.UserID
	kept.Spec.Source.Path, kept.Spec.Destination.Path = dm.Spec.Source.Path, dm.Spec.Destination.Path
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == nil {
		g.users, g.names = make(map[int64]map[types.UID]tombstone), make(map[string]*nnf.DataMovement)
	}
	now := time.Now()
	if last := g.names[dm.Name]; last != nil && last.UID == dm.UID {
		return false
	} else if last != nil {
		g.forget(last)
	}
	g.expire(now)
	if own := g.users[dm.Spec.UserID]; len(own) >= tombstonesPerUser {
		var oldest *tombstone
		for _, old := range own {
			if oldest == nil || old.at.Before(oldest.at) {
				oldest = &old
			}
		}
		g.forget(oldest.dm)
	}
	if g.users[dm.Spec.UserID] == nil {
		g.users[dm.Spec.UserID] = make(map[types.UID]tombstone)
	}
	g.users[dm.Spec.UserID][dm.UID] = tombstone{kept, now, true}
	g.names[dm.Name] = kept
	return true
}

// expire removes the expired tombstones of all users. The caller holds mu.
func (g *tombstones) expire(now time.Time) {
	if now.Sub(g.swept) < tombstoneTime/4 {
		return
	}
	g.swept = now
	for _, own := range g.users {
		for _, old := range own {
			if now.Sub(old.at) > tombstoneTime {
				g.forget(old.dm)
			}
		}
	}
}

// forget removes the tombstone of dm. The caller holds mu.
func (g *tombstones) forget(dm *nnf.DataMovement) {
	own := g.users[dm.Spec.UserID]
	if delete(own, dm.UID); len(own) == 0 {
		delete(g.users, dm.Spec.UserID)
	}
	if last := g.names[dm.Name]; last != nil && last.UID == dm.UID {
		delete(g.names, dm.Name)
	}
}

// find returns the tombstone of the last object with that name, if it is deleted.
func (g *tombstones) find(name string) (tombstone, bool) {
	found, ok := g.any(name)
	return found, ok && !found.prepared
}

// any is find, including prepared ones.
func (g *tombstones) any(name string) (tombstone, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	dm := g.names[name]
	if dm == nil {
		return tombstone{}, false
	}
	found := g.users[dm.Spec.UserID][dm.UID]
	if time.Since(found.at) > tombstoneTime {
		g.forget(dm)
		return tombstone{}, false
	}
	return found, true
}

// findSince is find after an error that reports a missing movement: it may have been
// cancelled since the last call of find.
func (g *tombstones) findSince(name string, err error) (tombstone, bool) {
	if !errors.Is(err, datamovement.ErrNotFound) {
		return tombstone{}, false
	}
	return g.any(name)
}

// drop removes the tombstone of the last object with that name.
func (g *tombstones) drop(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if dm := g.names[name]; dm != nil {
		g.forget(dm)
	}
}

// dropObject removes the tombstone of dm, and of no other object with its name.
func (g *tombstones) dropObject(dm *nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.users[dm.Spec.UserID][dm.UID]; ok {
		g.forget(dm)
	}
}

// matching returns the objects that have all the labels.
func (g *tombstones) matching(labels map[string]string) (out []*nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
next:
	for _, dm := range g.names {
		for k, v := range labels {
			if dm.Labels[k] != v {
				continue next
			}
		}
		if time.Since(g.users[dm.Spec.UserID][dm.UID].at) <= tombstoneTime {
			out = append(out, dm)
		}
	}
	return out
}
