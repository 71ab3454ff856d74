package server

import (
	"container/list"
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// checkNames refuses invalid names before any request to the API server.
func (s *Service) checkNames(c datamovement.Caller, w datamovement.WorkflowRef, uid string) error {
	err := w.CheckOptional()
	if err == nil {
		err = datamovement.CheckUID(uid)
	}
	return s.fault(c, uid, err)
}

// place returns the feed of the namespace of a movement.
func (s *Service) place(ctx context.Context, c datamovement.Caller, uid string) (*feed, error) {
	rabbit := ""
	if strings.HasPrefix(uid, nnf.PrefixNodeMovement) {
		var err error
		if rabbit, err = s.look.known(ctx); err != nil {
			return nil, s.fault(c, uid, err)
		}
		if rabbit == "" { // an external compute has no such movements
			return nil, datamovement.MovementNotFound(uid)
		}
	}
	return s.feed(datamovement.Namespace(uid, rabbit)), nil
}

// isAbsent reports whether a movement or batch was recently not found for c. A request
// for an object of another user is recorded each time.
func (s *Service) isAbsent(c datamovement.Caller, w datamovement.WorkflowRef, name string) bool {
	n, ok := s.absent.find(c, w, name)
	if ok && n.reason != "" {
		s.record(c, n.object, n.reason)
	}
	return ok
}

// read reads a movement from the API server, and stores it in the feed.
func (s *Service) read(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
	if s.isAbsent(c, w, uid) {
		return nil, datamovement.MovementNotFound(uid)
	}
	dm := new(nnf.DataMovement)
	err := s.api.get(ctx, kindMovement, f.namespace, uid, dm)
	if unanswered(err) && ctx.Err() == nil {
		// Jobs fail on an error, and a restart of the server breaks every connection
		// once.
		kube.Pause(ctx, readAgain)
		dm = new(nnf.DataMovement)
		err = s.api.get(ctx, kindMovement, f.namespace, uid, dm)
	}
	switch {
	case kube.IsNotFound(err):
		f.forget(uid)
		s.absent.add(c, w, uid, "", "")
		return nil, datamovement.MovementNotFound(uid)
	case err != nil:
		return nil, s.fault(c, uid, err)
	}
	f.learn(dm)
	if v := s.policy().Movement(c, dm, w); v.Outcome == datamovement.Hidden {
		s.absent.add(c, w, uid, datamovement.Describe(dm), v.Outcome.String()+": "+v.Reason)
	}
	return dm, nil
}

// readAgain is the pause before a read without a response is repeated.
const readAgain = 50 * time.Millisecond

// unanswered reports whether the server was not reached or the connection broke.
func unanswered(err error) bool {
	var answer apierrors.APIStatus
	f := datamovement.Explain(err)
	return f != nil && f.Reason == v2.ErrorReason_UNAVAILABLE && !errors.As(err, &answer) && !errors.As(err, new(*datamovement.Fault))
}

// current returns the cached movement, or reads it. A movement of another user is read
// like one that does not exist: otherwise the response time would distinguish them.
func (s *Service) current(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, f *feed, uid string) (*nnf.DataMovement, error) {
	if dm := f.get(uid); dm != nil && s.policy().Movement(c, dm, w).Allowed() {
		return dm, nil
	}
	last := f.last(uid)
	if last == nil || !s.policy().Movement(c, last, w).Allowed() {
		return s.read(ctx, c, w, f, uid)
	}
	// The watch is lost. If the API server does not respond either, the last known state
	// is better than an error: jobs fail on an error.
	short, cancel := context.WithTimeout(ctx, shortRead)
	defer cancel()
	dm, err := s.read(short, c, w, f, uid)
	if e := datamovement.Explain(err); e != nil && ctx.Err() == nil && errors.Is(e.Kind, datamovement.ErrUnavailable) {
		f.keep(last)
		return last, nil
	}
	return dm, err
}

// shortRead is the time limit of a read if an earlier state is known.
const shortRead = time.Second

// allowed returns an error for a movement that the caller may not access.
func (s *Service) allowed(c datamovement.Caller, dm *nnf.DataMovement, w datamovement.WorkflowRef) error {
	return s.verdict(c, datamovement.Describe(dm), s.policy().Movement(c, dm, w), datamovement.MovementNotFound(dm.Name))
}

// tombstone returns the tombstone of a movement of the caller.
func (s *Service) tombstone(c datamovement.Caller, w datamovement.WorkflowRef, uid string) (tombstone, bool) {
	g, ok := s.tombstones.find(uid)
	if !ok || s.allowed(c, g.dm, w) != nil {
		return tombstone{}, false
	}
	return g, true
}

// tombstoneSince is tombstone after an error of a request that started before another
// request cancelled the movement. It records no refusal, because the request has
// already done so.
func (s *Service) tombstoneSince(c datamovement.Caller, w datamovement.WorkflowRef, uid string, err error) (tombstone, bool) {
	g, ok := s.tombstones.findSince(uid, err)
	if !ok || !s.policy().Movement(c, g.dm, w).Allowed() {
		return tombstone{}, false
	}
	return g, true
}

// waiter acquires one of the user's slots for waiting requests.
func (s *Service) waiter(c datamovement.Caller, object string) (release func(), err error) {
	release, err = s.waiters.Acquire(c.UID)
	if err != nil {
		s.record(c, object, err.Error())
		return nil, datamovement.LimitExceeded("limits.waiters_per_user")
	}
	return release, nil
}

// await returns the movement when it has ended or after most, or its tombstone if it
// was cancelled before its start.
func (s *Service) await(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, f *feed, uid string, most time.Duration) (*nnf.DataMovement, tombstone, error) {
	changed := make(chan struct{}, 1)
	defer f.notify(changed, c.UID, uid)()
	timer := time.NewTimer(most)
	defer timer.Stop()
	for over := false; ; {
		if g, ok := s.tombstones.find(uid); ok {
			return nil, g, nil
		}
		dm, err := s.current(ctx, c, w, f, uid)
		if g, ok := s.tombstones.findSince(uid, err); ok {
			return nil, g, nil
		}
		if err != nil || over || datamovement.Completed(dm) {
			return dm, tombstone{}, err
		}
		s.endCancel(ctx, c, f, dm)
		select {
		case <-changed:
		case <-timer.C:
			over = true
		case <-s.stopping:
			over = true
		case <-ctx.Done():
			return nil, tombstone{}, ctx.Err()
		}
	}
}

const (
	// absentTime is how long a name that was not found is cached: clients repeat
	// requests with a wrong name every second or faster.
	absentTime = 2 * time.Second
	// maxAbsent is the maximum number of names of one user, maxAbsentAll of all users.
	maxAbsent    = 256
	maxAbsentAll = 8192
)

// absent caches for a short time which names of movements and batches do not exist for
// a user. It treats missing names and names of other users equally, so that callers
// cannot distinguish them. The zero value is ready to use.
type absent struct {
	mu    sync.Mutex
	names map[string]map[absentKey]*list.Element // by name, then by caller
	users map[uint32]int
	order list.List // of *absence, oldest first
}

// absentKey is the caller, and the workflow of the request.
type absentKey struct {
	uid      uint32
	workflow datamovement.WorkflowRef
}

// absentBatch returns the name of a batch in absent. It differs from the handle, which
// a request may also use as the uid of a movement.
func absentBatch(handle string) string { return "batch " + handle }

type absence struct {
	name string
	key  absentKey
	at   time.Time
	// Of a refusal, which is recorded each time; empty if the object does not exist.
	object, reason string
}

// find returns the cached absence; false if the API server must be asked.
func (a *absent) find(c datamovement.Caller, w datamovement.WorkflowRef, name string) (absence, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	e := a.names[name][absentKey{c.UID, w}]
	if e == nil {
		return absence{}, false
	}
	return *e.Value.(*absence), true
}

// add caches a name; object and reason are those of a refusal, or empty.
func (a *absent) add(c datamovement.Caller, w datamovement.WorkflowRef, name, object, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	n := &absence{name: name, key: absentKey{c.UID, w}, at: time.Now(), object: object, reason: reason}
	if e := a.names[name][n.key]; e != nil {
		a.remove(e)
	}
	if a.users[c.UID] >= maxAbsent || a.order.Len() >= maxAbsentAll {
		return // the name is not cached: it costs a request each time
	}
	if a.names == nil {
		a.names, a.users = make(map[string]map[absentKey]*list.Element), make(map[uint32]int)
	}
	if a.names[name] == nil {
		a.names[name] = make(map[absentKey]*list.Element)
	}
	a.names[name][n.key] = a.order.PushBack(n)
	a.users[c.UID]++
}

// forget removes a name from the cache, because an object with it was created.
func (a *absent) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.names[name] {
		a.remove(e)
	}
}

// expire removes expired names. The caller holds mu.
func (a *absent) expire() {
	for e := a.order.Front(); e != nil && time.Since(e.Value.(*absence).at) >= absentTime; e = a.order.Front() {
		a.remove(e)
	}
}

// remove removes one entry. The caller holds mu.
func (a *absent) remove(e *list.Element) {
	n := a.order.Remove(e).(*absence)
	delete(a.names[n.name], n.key)
	if len(a.names[n.name]) == 0 {
		delete(a.names, n.name)
	}
	if a.users[n.key.uid]--; a.users[n.key.uid] == 0 {
		delete(a.users, n.key.uid)
	}
}

// List returns the uids of the movements of a workflow that the caller may see.
func (s *Service) List(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef) ([]string, error) {
	if err := w.Check(); err != nil {
		return nil, s.fault(c, "", err)
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

// recordHidden writes an audit record if movements exist, but all are hidden from the
// caller. It returns the object and reason of the record.
func (s *Service) recordHidden(c datamovement.Caller, w datamovement.WorkflowRef, items []*nnf.DataMovement) (object, reason string) {
	for _, dm := range items {
		if v := s.policy().Listed(c, dm, w); v.Outcome == datamovement.Hidden {
			object, reason = w.Namespace+"/"+w.Name, v.Outcome.String()+": "+v.Reason
			s.record(c, object, reason)
			return object, reason // one record per request
		}
	}
	return "", ""
}

// listed reads the movements of a workflow with the labels in further.
func (s *Service) listed(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, further map[string]string) ([]*nnf.DataMovement, error) {
	node := s.o.Node
	if s.settings.Load().Policy.ListWorkflow && further == nil {
		node = ""
	}
	labels := datamovement.Selector(w, node)
	maps.Copy(labels, further)
	key := listKey{c.UID, selectorOf(labels)}
	items, err := s.lists.get(ctx, key, func() (items []*nnf.DataMovement, err error) {
		return s.movements(ctx, labels)
	})
	return items, s.fault(c, w.Namespace+"/"+w.Name, err)
}

// movements lists the movements with these labels. Those that this node has created are in two
// namespaces. Without the label of the initiator, it lists the movements of all namespaces, unless
// the account belongs to this node alone and may list those two only.
//
// The API server looks at each movement of the namespaces that a list includes.
func (s *Service) movements(ctx context.Context, labels map[string]string) (items []*nnf.DataMovement, err error) {
	if labels[api.LabelInitiator] == "" {
		if err := s.api.list(ctx, kindMovement, "", labels, false, &items); !kube.IsForbidden(err) {
			return items, err
		}
	}
	rabbit, err := s.look.known(ctx)
	if err != nil {
		return nil, err
	}
	for _, ns := range []string{rabbit, nnf.NamespaceDataMovement} {
		if ns == "" { // an external compute has no rabbit
			continue
		}
		var part []*nnf.DataMovement
		if err := s.api.list(ctx, kindMovement, ns, labels, false, &part); err != nil {
			return nil, err
		}
		items = append(items, part...)
	}
	return items, nil
}

// lists lets concurrent calls of one user for the same list share one request: decoding
// a list of thousands of movements takes much memory and time. A call never gets the
// response to a request that was sent before the call started. The zero value is ready
// to use.
type lists struct {
	mu   sync.Mutex
	next map[listKey]*sharedList
}

type listKey struct {
	uid      uint32
	selector string
}

// sharedList is a request that is in progress or about to be sent.
type sharedList struct {
	before *sharedList // the request in progress when the first call arrived; may be nil
	sent   bool        // later calls need another request
	calls  int         // number of waiting calls
	turn   chan struct{}
	done   chan struct{}
	items  []*nnf.DataMovement
	err    error
}

// get returns the result of fetch, called by this call or by another one. The caller
// must not change the items.
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

// errSenderGone is the result of a request whose call ended before the response.
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
	case x.turn <- struct{}{}: // this call sends the request
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	x.sent, x.before = true, nil
	l.mu.Unlock()
	x.err = errSenderGone // in case fetch panics
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

// join returns the request whose response is recent enough for a call that starts now,
// and a channel that is closed when the request may be sent.
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

// leave removes a request that no call will send.
func (l *lists) leave(key listKey, x *sharedList) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if x.calls--; x.calls == 0 && !x.sent && l.next[key] == x {
		delete(l.next, key)
	}
}
