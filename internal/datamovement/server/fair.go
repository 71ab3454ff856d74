package server

import (
	"context"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// requestsPerUser is how many requests to the API server one user may have
// under way. The daemon as a whole may send so many a second
// (kubernetes.qps), and what is above that waits in one queue: with this bound a
// user finds few requests of each other one before theirs, however much those
// ask for.
const requestsPerUser = 8

// fair is a Client whose requests on behalf of a user wait for their turn among
// those of the same user. Requests of the daemon itself do not wait.
type fair struct {
	Client
	turns *turns
}

func (f fair) Get(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	return f.turns.take(ctx, func() error { return f.Client.Get(ctx, r, ns, name, into) })
}

func (f fair) Create(ctx context.Context, r kube.Resource, ns string, obj, into any) error {
	return f.turns.take(ctx, func() error { return f.Client.Create(ctx, r, ns, obj, into) })
}

func (f fair) Patch(ctx context.Context, r kube.Resource, ns, name, sub string, pt types.PatchType, body []byte, into any) error {
	return f.turns.take(ctx, func() error { return f.Client.Patch(ctx, r, ns, name, sub, pt, body, into) })
}

func (f fair) Delete(ctx context.Context, r kube.Resource, ns, name string, uid types.UID) error {
	return f.turns.take(ctx, func() error { return f.Client.Delete(ctx, r, ns, name, uid) })
}

func (f fair) ClientMounts(ctx context.Context, r kube.Resource, ns, selector string, atHand bool) (out []*dws.ClientMount, err error) {
	err = f.turns.take(ctx, func() error { out, err = f.Client.ClientMounts(ctx, r, ns, selector, atHand); return err })
	return out, err
}

func (f fair) Movements(ctx context.Context, r kube.Resource, selector string) (out []*nnf.DataMovement, err error) {
	err = f.turns.take(ctx, func() error { out, err = f.Client.Movements(ctx, r, selector); return err })
	return out, err
}

// turns counts the requests of each user. The zero value is ready.
type turns struct {
	mu    sync.Mutex
	users map[uint32]*queue
}

// queue is one user's. It is forgotten when nobody is in it.
type queue struct {
	slots chan struct{}
	in    int // who waits, and who is at it
}

// take calls f when it is the turn of the call in ctx. Without a call it is
// always.
func (t *turns) take(ctx context.Context, f func() error) error {
	c, ok := ctx.Value(callKey{}).(Call)
	if !ok {
		return f()
	}
	q := t.enter(c.UID)
	defer t.leave(c.UID, q)
	select {
	case q.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.slots }()
	return f()
}

func (t *turns) enter(uid uint32) *queue {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.users == nil {
		t.users = make(map[uint32]*queue)
	}
	q := t.users[uid]
	if q == nil {
		q = &queue{slots: make(chan struct{}, requestsPerUser)}
		t.users[uid] = q
	}
	q.in++
	return q
}

func (t *turns) leave(uid uint32, q *queue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if q.in--; q.in == 0 {
		delete(t.users, uid)
	}
}

// ours is ctx for a request whose answer all users share, so that none of them
// waits for the turn of another.
func ours(ctx context.Context) context.Context { return context.WithValue(ctx, callKey{}, nil) }
