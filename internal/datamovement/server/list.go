package server

import (
	"context"
	"errors"
	"maps"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// List returns the uids of the caller's movements of a workflow that this node
// has made. Those of others are not shown.
func (s *Service) List(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef) ([]string, error) {
	if err := w.Check(); err != nil {
		return nil, s.judged(c, "", err)
	}
	items, err := s.listed(ctx, c, w, nil)
	if err != nil {
		return nil, err
	}
	uids := s.policy().List(c, w, items)
	if len(uids) == 0 {
		s.recordHidden(c, w, items)
	}
	return uids, nil
}

// recordHidden is for a caller who is shown nothing of what there is. It returns
// the record.
func (s *Service) recordHidden(c datamovement.Caller, w datamovement.WorkflowRef, items []*nnf.DataMovement) (object, reason string) {
	for _, dm := range items {
		if v := s.policy().Listed(c, dm, w); v.Outcome == datamovement.Hidden {
			object, reason = w.Namespace+"/"+w.Name, v.Outcome.String()+": "+v.Reason
			s.record(c, object, reason)
			return object, reason // one record for one request
		}
	}
	return "", ""
}

// listed reads the movements of a workflow that have further labels.
func (s *Service) listed(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, further map[string]string) ([]*nnf.DataMovement, error) {
	node := s.o.Node
	if s.settings.Load().Policy.ListWorkflow && further == nil {
		node = ""
	}
	labels := datamovement.Selector(w, node)
	maps.Copy(labels, further)
	key := listKey{c.UID, selectorOf(labels)}
	items, err := s.lists.get(ctx, key, func() (items []*nnf.DataMovement, err error) {
		err = s.api.list(ctx, kindMovement, "", labels, false, &items)
		return items, err
	})
	return items, s.judged(c, w.Namespace+"/"+w.Name, err)
}

// lists lets calls of one user that ask for the same list at the same time share
// one request: a list of thousands of movements takes much memory and time to
// decode. A call never gets the answer to a request that was sent before the
// call started. The zero value is ready.
type lists struct {
	mu   sync.Mutex
	next map[listKey]*sharedList
}

type listKey struct {
	uid      uint32
	selector string
}

// sharedList is a request that is under way or about to be sent.
type sharedList struct {
	before *sharedList // was under way when the first call came; nil: none
	sent   bool        // later calls need another one
	calls  int         // that wait
	turn   chan struct{}
	done   chan struct{}
	items  []*nnf.DataMovement
	err    error
}

// get returns what fetch returns, of this call or of another one. Nobody may
// change the items.
func (l *lists) get(ctx context.Context, key listKey, fetch func() ([]*nnf.DataMovement, error)) ([]*nnf.DataMovement, error) {
	for {
		x, ready := l.join(key)
		items, err := l.await(ctx, key, x, ready, fetch)
		l.leave(key, x)
		if err != nil && ctx.Err() == nil && errors.Is(err, errSenderGone) {
			continue
		}
		return items, err
	}
}

// errSenderGone is the outcome of a request whose call ended before the answer.
var errSenderGone = errors.New("the call that asked for the list has ended")

func (l *lists) await(ctx context.Context, key listKey, x *sharedList, ready <-chan struct{}, fetch func() ([]*nnf.DataMovement, error)) ([]*nnf.DataMovement, error) {
	select {
	case <-ready:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	select {
	case <-x.done:
		return x.items, x.err
	case x.turn <- struct{}{}: // this call sends it
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	x.sent, x.before = true, nil
	l.mu.Unlock()
	x.err = errSenderGone // should fetch panic
	defer func() {
		l.mu.Lock()
		if l.next[key] == x {
			delete(l.next, key)
		}
		l.mu.Unlock()
		close(x.done)
	}()
	items, err := fetch()
	if ctx.Err() == nil {
		x.items, x.err = items, err
	}
	return items, err
}

// join returns the request whose answer fits a call that starts now, and what to
// wait for before it may be sent.
func (l *lists) join(key listKey) (x *sharedList, ready <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	x = l.next[key]
	if x == nil || x.sent {
		if l.next == nil {
			l.next = make(map[listKey]*sharedList)
		}
		x = &sharedList{before: x, turn: make(chan struct{}, 1), done: make(chan struct{})}
		l.next[key] = x
	}
	x.calls++
	if x.before != nil {
		return x, x.before.done
	}
	return x, alwaysReady
}

var alwaysReady = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// leave forgets a request that no call is going to send.
func (l *lists) leave(key listKey, x *sharedList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.calls--; x.calls == 0 && !x.sent && l.next[key] == x {
		delete(l.next, key)
	}
}
