package clientmount

import (
	"context"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// shareFor is how long after its end a read may still serve those who do not
// need a fresh one.
const shareFor = time.Second

// shared lets attempts share reads of the same thing that happen at the same
// time. It is no cache: a read is forgotten shareFor after its end.
type shared[T any] struct {
	mu    sync.Mutex
	reads map[string]*read[T]
}

// read is one read and those who wait for it. The lock of shared guards what
// may change before done is closed.
type read[T any] struct {
	turn    *kube.Turn // the most urgent one of those who wait
	sent    bool       // the server may have answered already
	waiters int
	cancel  context.CancelFunc
	done    chan struct{}

	value T
	err   error
	panic any
}

// get returns what f returns, or what another call of f for the same key
// returned: one that ended less than shareFor ago or, if fresh is set, one whose
// request was not sent yet when get was called. Errors are shared like values. f
// has a context of its own, which ends when no caller waits any more.
func (s *shared[T]) get(ctx context.Context, key string, fresh bool, f func(context.Context) (T, error)) (T, error) {
	turn := kube.TurnOf(ctx)
	s.mu.Lock()
	r := s.reads[key]
	if r == nil || (fresh && r.sent) {
		r = s.start(ctx, key, f)
	}
	r.waiters++
	s.mu.Unlock()
	for {
		changed := turn.Changed()
		r.turn.Join(turn)
		select {
		case <-r.done:
			if r.panic != nil {
				panic(r.panic)
			}
			return r.value, r.err
		case <-changed:
		case <-ctx.Done():
			s.leave(key, r)
			var none T
			return none, ctx.Err()
		}
	}
}

// start starts a read. The caller holds the lock.
func (s *shared[T]) start(ctx context.Context, key string, f func(context.Context) (T, error)) *read[T] {
	r := &read[T]{turn: kube.RetryTurn(0), done: make(chan struct{})}
	if turn := kube.TurnOf(ctx); turn != nil {
		r.turn = turn.Copy()
	}
	ctx, r.cancel = context.WithCancel(kube.WithTurn(context.WithoutCancel(ctx), r.turn))
	ctx = kube.WithSent(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.sent = true
	})
	if s.reads == nil {
		s.reads = map[string]*read[T]{}
	}
	s.reads[key] = r
	go func() {
		defer func() {
			r.panic = recover()
			r.cancel()
			s.mu.Lock()
			r.sent = true
			s.mu.Unlock()
			time.AfterFunc(shareFor, func() { s.forget(key, r) })
			close(r.done)
		}()
		r.value, r.err = f(ctx)
	}()
	return r
}

// leave is called for one who waits no more.
func (s *shared[T]) leave(key string, r *read[T]) {
	s.mu.Lock()
	r.waiters--
	last := r.waiters == 0
	if last && s.reads[key] == r {
		delete(s.reads, key)
	}
	s.mu.Unlock()
	if last {
		r.cancel()
	}
}

func (s *shared[T]) forget(key string, r *read[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads[key] == r {
		delete(s.reads, key)
	}
}
