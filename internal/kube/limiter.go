package kube

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// retryShare limits retries to the fraction 1/retryShare of the rate.
	retryShare = 4
	// oldestEvery is how often the request that has waited longest is sent next: every
	// fourth time while others wait.
	oldestEvery = 4
)

var errTooLate = errors.New("the rate limit would delay the request beyond its time limit")

// limiter limits the rate and burst of requests with a token bucket, and selects which
// waiting request is sent next (see Priority). It implements client-go's
// flowcontrol.RateLimiter. While no request waits, it has no timer and no goroutine.
type limiter struct {
	mu      sync.Mutex
	all     *rate.Limiter
	retries *rate.Limiter
	waiting []*waiter // the oldest first
	timer   *time.Timer
	passed  int // requests sent while others waited
}

// timeUntil returns the time until b has that many tokens. Each request takes one.
func timeUntil(b *rate.Limiter, now time.Time, tokens float64) time.Duration {
	return time.Duration(max(0, tokens-b.TokensAt(now)) / float64(b.Limit()) * float64(time.Second))
}

type waiter struct {
	*request
	ready chan struct{}
}

func newLimiter(qps float32, burst int) *limiter {
	return &limiter{
		all:     rate.NewLimiter(rate.Limit(qps), burst),
		retries: rate.NewLimiter(rate.Limit(qps)/retryShare, max(1, burst/retryShare)),
	}
}

// Wait returns when the request may be sent, or with the context's error.
func (l *limiter) Wait(ctx context.Context) error {
	r := requestOf(ctx)
	if r != nil && r.granted != nil && r.granted.CompareAndSwap(true, false) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	w := &waiter{request: r, ready: make(chan struct{})}
	var priority *Priority
	if r != nil {
		priority = r.priority
	}
	changed := priority.Changed()
	l.mu.Lock()
	if priority == nil && l.tooLate(ctx) {
		l.mu.Unlock()
		return errTooLate
	}
	l.waiting = append(l.waiting, w)
	l.dispatch()
	l.mu.Unlock()
	for {
		select {
		case <-w.ready:
			return nil
		case <-changed:
			changed = priority.Changed()
			l.mu.Lock()
			l.dispatch()
			l.mu.Unlock()
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			select {
			case <-w.ready: // at the same moment: return the token
				l.all.AllowN(time.Now(), -1)
			default:
			}
			l.waiting = slices.DeleteFunc(l.waiting, func(x *waiter) bool { return x == w })
			l.dispatch()
			return ctx.Err()
		}
	}
}

// tooLate reports whether a request without a priority could be sent only after its
// deadline.
func (l *limiter) tooLate(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	if !ok {
		return false
	}
	before := 0.0
	for _, w := range l.waiting {
		if c, _ := w.place(); c == classOwn {
			before++
		}
	}
	now := time.Now()
	return now.Add(timeUntil(l.all, now, before+1)).After(deadline)
}

// dispatch releases requests while there are tokens, and sets the timer for the next token
// if requests still wait. The caller holds the lock.
func (l *limiter) dispatch() {
	now := time.Now()
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	for len(l.waiting) > 0 {
		if wait := timeUntil(l.all, now, 1); wait > 0 {
			l.wake(wait)
			return
		}
		i := l.next(now)
		if i < 0 { // only retries wait, and their share is used up
			l.wake(timeUntil(l.retries, now, 1))
			return
		}
		w := l.waiting[i]
		if c, _ := w.place(); c == classRetry {
			l.retries.AllowN(now, 1)
		}
		l.all.AllowN(now, 1)
		l.waiting = slices.Delete(l.waiting, i, i+1)
		close(w.ready)
	}
}

func (l *limiter) wake(after time.Duration) {
	// Despite rounding, a whole token must be available when the timer fires.
	l.timer = time.AfterFunc(after+time.Microsecond, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dispatch()
	})
}

// next returns the index of the request to send next, or -1.
func (l *limiter) next(now time.Time) int {
	best, oldest := -1, -1
	var bestClass class
	var bestRank rank
	noRetry := timeUntil(l.retries, now, 1) > 0
	for i, w := range l.waiting {
		c, r := w.place()
		if c == classOwn {
			return i
		}
		if c == classRetry && noRetry {
			continue
		}
		if oldest < 0 {
			oldest = i
		}
		if best < 0 || c < bestClass || (c == bestClass && r.before(bestRank)) {
			best, bestClass, bestRank = i, c, r
		}
	}
	if len(l.waiting) < 2 || best < 0 {
		return best
	}
	if l.passed++; l.passed%oldestEvery == 0 {
		return oldest
	}
	return best
}

// TryAccept implements flowcontrol.RateLimiter.
func (l *limiter) TryAccept() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) == 0 && l.all.Allow()
}

// Accept implements flowcontrol.RateLimiter.
func (l *limiter) Accept() { _ = l.Wait(context.Background()) }

// Stop implements flowcontrol.RateLimiter.
func (l *limiter) Stop() {}

// QPS implements flowcontrol.RateLimiter.
func (l *limiter) QPS() float32 { return float32(l.all.Limit()) }

// A Priority orders the requests of one attempt among those that wait because of
// Options.QPS. Requests without a Priority (watches, lists, discovery, all requests of a
// program that does not use priorities) go first, in order of arrival. Then:
//
//  1. Finishing requests of any attempt
//  2. other requests of first attempts, the newest attempt first
//  3. Reporting requests of first attempts
//  4. requests of retries, the one with the fewest failures first, then the newest;
//     together they get at most a quarter of the rate
//
// Every fourth request that is sent while others wait is the one that has waited longest,
// whatever its rank: with n older requests before it, a request waits for at most 4(n+1)
// others.
//
// A Priority is safe for concurrent use.
type Priority struct {
	mu      sync.Mutex
	rank    rank
	changed chan struct{}
}

// rank orders attempts.
type rank struct {
	retry    bool
	failures int
	seq      uint64 // a newer attempt has a higher number
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

var attempts atomic.Uint64

// FirstPriority returns the priority of a first attempt.
func FirstPriority() *Priority { return newPriority(rank{seq: attempts.Add(1)}) }

// RetryPriority returns the priority of an attempt after that many failures; 0 is for
// other work that can wait.
func RetryPriority(failures int) *Priority {
	return newPriority(rank{retry: true, failures: failures, seq: attempts.Add(1)})
}

func newPriority(r rank) *Priority { return &Priority{rank: r, changed: make(chan struct{})} }

// Copy returns a new priority with the current rank of p.
func (p *Priority) Copy() *Priority { return newPriority(p.now()) }

// Raise makes p the priority of a first attempt that starts now. This also applies to
// requests that are already waiting.
func (p *Priority) Raise() { p.take(rank{seq: attempts.Add(1)}) }

// Join makes p at least as high as q. A nil q changes nothing.
func (p *Priority) Join(q *Priority) {
	if q != nil {
		p.take(q.now())
	}
}

// Changed returns a channel that is closed when the priority next rises. It returns nil
// for a nil Priority.
func (p *Priority) Changed() <-chan struct{} {
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.changed
}

func (p *Priority) take(r rank) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.before(p.rank) {
		p.rank = r
		close(p.changed)
		p.changed = make(chan struct{})
	}
}

func (p *Priority) now() rank {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rank
}

// class is the first criterion of the limiter.
type class int

const (
	classOwn class = iota
	classFinish
	classFirst
	classReport
	classRetry
)

// request contains the properties of the requests that are sent with a context.
type request struct {
	priority *Priority
	class    class // of a first attempt
	sent     func()
	granted  *atomic.Bool // the limiter has already admitted one request
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

// WithPriority sets the priority of requests that are sent with the context. Their time
// in the limiter is not part of Options.Timeout.
func WithPriority(ctx context.Context, p *Priority) context.Context {
	return withRequest(ctx, func(r *request) { r.priority = p })
}

// PriorityOf returns the priority of a context, or nil.
func PriorityOf(ctx context.Context) *Priority {
	if r := requestOf(ctx); r != nil {
		return r.priority
	}
	return nil
}

// Finishing marks requests that complete an attempt that has succeeded so far.
func Finishing(ctx context.Context) context.Context {
	return withRequest(ctx, func(r *request) { r.class = classFinish })
}

// Reporting marks requests that report a failure.
func Reporting(ctx context.Context) context.Context {
	return withRequest(ctx, func(r *request) { r.class = classReport })
}

// WithSent makes Client call f just before it sends a request with the context, after the
// limiter has admitted it.
func WithSent(ctx context.Context, f func()) context.Context {
	return withRequest(ctx, func(r *request) { r.sent = f })
}

// Sending calls the function of WithSent. Other implementations of the requests call it
// at the same point as Client.
func Sending(ctx context.Context) {
	if r := requestOf(ctx); r != nil && r.sent != nil {
		r.sent()
	}
}

// place returns the current class and rank of a request.
func (r *request) place() (class, rank) {
	if r == nil || r.priority == nil {
		return classOwn, rank{}
	}
	at := r.priority.now()
	if at.retry && r.class != classFinish {
		return classRetry, at
	}
	return r.class, at
}
