package server

import (
	"context"
	"encoding/json"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// deleteWait is how long Delete waits for the end of a movement that was
// cancelled: clients delete right after cancelling ("Do better" 14).
const deleteWait = 10 * time.Second

// own reads a movement from the API server and checks that it is the caller's.
func (s *Service) own(ctx context.Context, c Call, w datamovement.WorkflowRef, uid string) (*nnf.DataMovement, *feed, error) {
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

// Cancel asks for the end of a movement (contract nnf-dm.md 4.5). One that has
// not been started is deleted, for the rabbit would never end it ("Do better"
// 13).
func (s *Service) Cancel(ctx context.Context, c Call, w datamovement.WorkflowRef, uid string) error {
	if err := s.checkNames(c, w, uid); err != nil {
		return err
	}
	if _, ok := s.buried(c, w, uid); ok {
		return nil
	}
	dm, f, err := s.own(ctx, c, w, uid)
	if _, ok := s.buriedMeanwhile(c, w, uid, err); ok {
		return nil
	}
	if err != nil || datamovement.Completed(dm) {
		return err
	}
	return s.cancel(ctx, c, f, dm)
}

func (s *Service) cancel(ctx context.Context, c Call, f *feed, dm *nnf.DataMovement) error {
	if !dm.Spec.Cancel {
		var err error
		if dm, err = s.askForEnd(ctx, f, dm); err != nil {
			return s.judged(c, dm.Name, err)
		}
		s.log.Info("data movement cancelled", "uid", c.UID, "pid", c.PID, "object", datamovement.Describe(dm), daemon.EventID(eventEnded))
	}
	if datamovement.Started(dm) || datamovement.Completed(dm) {
		return nil
	}
	s.tombstones.add(dm)
	if err := s.remove(ctx, dm); err != nil {
		s.tombstones.dropObject(dm)
		return s.judged(c, dm.Name, err)
	}
	f.forget(dm.Name)
	f.look(dm.Name) // at the tombstone
	return nil
}

// askForEnd sets spec.cancel, of the object that was looked at and no other.
func (s *Service) askForEnd(ctx context.Context, f *feed, dm *nnf.DataMovement) (*nnf.DataMovement, error) {
	body, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": dm.UID},
		"spec":     map[string]any{"cancel": true},
	})
	if err != nil {
		return dm, err
	}
	after := new(nnf.DataMovement)
	err = s.api.with(ctx, kindMovement, func(res kube.Resource) error {
		return s.api.Patch(ctx, res, dm.Namespace, dm.Name, "", types.MergePatchType, body, after)
	})
	switch {
	case kube.IsNotFound(err):
		f.forget(dm.Name)
		return dm, datamovement.MovementNotFound(dm.Name)
	case kube.IsConflict(err):
		return dm, datamovement.NewFault(datamovement.ErrFailed, datamovement.ReasonUnavailable, "failed to initiate cancel on dm node: %w", err)
	case err != nil:
		return dm, err
	}
	f.learn(after)
	return after, nil
}

// remove deletes the object that was looked at and no other: when its name was
// given to another one since, it is gone. That it is gone already is as good.
func (s *Service) remove(ctx context.Context, dm *nnf.DataMovement) error {
	err := s.api.with(ctx, kindMovement, func(res kube.Resource) error {
		return s.api.Delete(ctx, res, dm.Namespace, dm.Name, dm.UID)
	})
	if err != nil && !kube.IsNotFound(err) && !kube.IsConflict(err) {
		return err
	}
	if kube.IsConflict(err) {
		s.tombstones.dropObject(dm) // an answer for that name is about the other one
	} else {
		s.living.drop(dm)
	}
	return nil
}

// Delete forgets a movement that has ended (contract nnf-dm.md 4.6).
func (s *Service) Delete(ctx context.Context, c Call, w datamovement.WorkflowRef, uid string) error {
	if err := s.checkNames(c, w, uid); err != nil {
		return err
	}
	if _, ok := s.buried(c, w, uid); ok {
		s.tombstones.drop(uid)
		return nil
	}
	dm, f, err := s.own(ctx, c, w, uid)
	if _, ok := s.buriedMeanwhile(c, w, uid, err); ok {
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
		return stillActive(uid)
	}
	if err := s.remove(ctx, dm); err != nil {
		return s.judged(c, uid, err)
	}
	f.forget(uid)
	return nil
}

func (s *Service) awaitCancelled(ctx context.Context, c Call, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
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

// List returns the uids of the caller's movements of a workflow that this node
// has made (contract nnf-dm.md 4.7). Those of others look as if there were none.
func (s *Service) List(ctx context.Context, c Call, w datamovement.WorkflowRef) ([]string, error) {
	if err := w.Check(); err != nil {
		return nil, s.judged(c, "", err)
	}
	items, err := s.listed(ctx, c, w, nil)
	if err != nil {
		return nil, err
	}
	uids := datamovement.List(s.access(c), w, items)
	if len(uids) == 0 {
		s.recordHidden(c, w, items)
	}
	return uids, nil
}

// recordHidden is for a caller who is shown nothing of what there is. It returns
// the record.
func (s *Service) recordHidden(c Call, w datamovement.WorkflowRef, items []*nnf.DataMovement) (object, reason string) {
	for _, dm := range items {
		if v := s.access(c).Listed(dm, w); v.Outcome == datamovement.Hidden {
			object, reason = w.Namespace+"/"+w.Name, v.Outcome.String()+": "+v.Reason
			s.record(c, object, reason)
			return object, reason // one record for one request
		}
	}
	return "", ""
}

// listed reads the movements of a workflow that have further labels.
func (s *Service) listed(ctx context.Context, c Call, w datamovement.WorkflowRef, further map[string]string) ([]*nnf.DataMovement, error) {
	node := s.o.Node
	if s.settings.Load().Policy.ListWorkflow && further == nil {
		node = ""
	}
	labels := datamovement.Selector(w, node)
	for k, v := range further {
		labels[k] = v
	}
	selector := selectorOf(labels)
	items, err := s.lists.get(ctx, listKey{c.UID, selector}, func() (items []*nnf.DataMovement, err error) {
		err = s.api.with(ctx, kindMovement, func(res kube.Resource) (err error) {
			items, err = s.api.Movements(ctx, res, selector)
			return err
		})
		return items, err
	})
	return items, s.judged(c, w.Namespace+"/"+w.Name, err)
}

func stillActive(uid string) error {
	return datamovement.NewFault(datamovement.ErrActive, datamovement.ReasonMovementActive, "data movement %s has not ended: wait for it, or cancel it first", uid)
}
