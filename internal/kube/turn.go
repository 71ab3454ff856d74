package kube

import (
	"context"
	"sync"
	"sync/atomic"
)

// A Turn orders the requests of one piece of work among those that wait because
// of Options.QPS. Requests without a Turn (watches, lists, discovery, all of a
// program that uses no turns) go first, in the order in which they came. Then:
//
//  1. Finishing requests of any work
//  2. other requests of first attempts, the newest attempt first
//  3. Reporting requests of first attempts
//  4. requests of retries, the one with the fewest failures first, then the
//     newest; together they get at most a quarter of the rate
//
// Every fourth request that is sent while others wait is the one that has waited
// longest, whatever its rank: with n older ones before it, a request waits for at
// most 4(n+1) others.
//
// A Turn is safe for concurrent use.
type Turn struct {
	mu      sync.Mutex
	rank    rank
	changed chan struct{}
}

// rank is the place of a piece of work.
type rank struct {
	retry    bool
	failures int
	seq      uint64 // a newer one has a higher number
}

func (a rank) before(b rank) bool {
	switch {
	case a.retry != b.retry:
		return b.retry
	case a.retry && a.failures != b.failures:
		return a.failures < b.failures
	}
	return a.seq > b.seq
}

var turns atomic.Uint64

// FirstTurn is the turn of a first attempt.
func FirstTurn() *Turn { return newTurn(rank{seq: turns.Add(1)}) }

// RetryTurn is the turn of an attempt after so many failures, or of work that
// can wait (0).
func RetryTurn(failures int) *Turn {
	return newTurn(rank{retry: true, failures: failures, seq: turns.Add(1)})
}

func newTurn(r rank) *Turn { return &Turn{rank: r, changed: make(chan struct{})} }

// Copy returns a turn that is as urgent now.
func (t *Turn) Copy() *Turn { return newTurn(t.now()) }

// Raise makes it the turn of a first attempt that starts now, also for requests
// that wait already.
func (t *Turn) Raise() { t.take(rank{seq: turns.Add(1)}) }

// Join makes t at least as urgent as u. A nil u changes nothing.
func (t *Turn) Join(u *Turn) {
	if u != nil {
		t.take(u.now())
	}
}

// Changed is closed when the turn next becomes more urgent. It is nil for a nil
// Turn.
func (t *Turn) Changed() <-chan struct{} {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.changed
}

func (t *Turn) take(r rank) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r.before(t.rank) {
		t.rank = r
		close(t.changed)
		t.changed = make(chan struct{})
	}
}

func (t *Turn) now() rank {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.rank
}

// class is the first thing that the limiter looks at.
type class int

const (
	classOwn class = iota
	classFinish
	classFirst
	classReport
	classRetry
)

// request is what a context says of the requests that are made with it.
type request struct {
	turn    *Turn
	class   class // of a first attempt
	sent    func()
	granted *atomic.Bool // the limiter has let one request pass already
}

type requestKey struct{}

func requestOf(ctx context.Context) *request {
	r, _ := ctx.Value(requestKey{}).(*request)
	return r
}

func withRequest(ctx context.Context, change func(*request)) context.Context {
	r := &request{class: classFirst}
	if old := requestOf(ctx); old != nil {
		*r = *old
	}
	change(r)
	return context.WithValue(ctx, requestKey{}, r)
}

// WithTurn gives the requests that are made with the context a turn. The time
// that they wait for it does not count for Options.Timeout.
func WithTurn(ctx context.Context, t *Turn) context.Context {
	return withRequest(ctx, func(r *request) { r.turn = t })
}

// TurnOf returns the turn of a context, or nil.
func TurnOf(ctx context.Context) *Turn {
	if r := requestOf(ctx); r != nil {
		return r.turn
	}
	return nil
}

// Finishing marks requests that complete work which has succeeded so far.
func Finishing(ctx context.Context) context.Context {
	return withRequest(ctx, func(r *request) { r.class = classFinish })
}

// Reporting marks requests that report a failure.
func Reporting(ctx context.Context) context.Context {
	return withRequest(ctx, func(r *request) { r.class = classReport })
}

// WithSent has f called just before a request that is made with the context is
// sent: when it has waited for its turn.
func WithSent(ctx context.Context, f func()) context.Context {
	return withRequest(ctx, func(r *request) { r.sent = f })
}

// Sending calls what WithSent asked for. Implementations of the requests other
// than Client call it at the same place.
func Sending(ctx context.Context) {
	if r := requestOf(ctx); r != nil && r.sent != nil {
		r.sent()
	}
}

// place returns where a request stands now.
func (r *request) place() (class, rank) {
	if r == nil || r.turn == nil {
		return classOwn, rank{}
	}
	at := r.turn.now()
	if at.retry && r.class != classFinish {
		return classRetry, at
	}
	return r.class, at
}
