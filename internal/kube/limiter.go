package kube

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	// retryShare is the part of the rate, 1/retryShare, that retries may use.
	retryShare = 4
	// oldestEvery says which requests go to the one that has waited longest.
	oldestEvery = 4
)

var errTooLate = errors.New("the request would wait for the limit of requests per second beyond its time limit")

// limiter keeps requests within a rate and a burst, like a token bucket, and
// decides which of those that wait is sent next (see Turn). It is client-go's
// flowcontrol.RateLimiter. While nothing waits it has no timer and no goroutine.
type limiter struct {
	mu      sync.Mutex
	all     bucket
	retries bucket
	waiting []*waiter // the oldest first
	timer   *time.Timer
	passed  int // requests sent while others waited
}

// bucket holds tokens, of which each request takes one.
type bucket struct {
	rate, most float64 // tokens per second, and at once
	tokens     float64
	at         time.Time
}

func (b *bucket) refill(now time.Time) {
	b.tokens = min(b.most, b.tokens+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
}

// left is the time until there is a token.
func (b *bucket) left() time.Duration {
	return time.Duration(max(0, 1-b.tokens) / b.rate * float64(time.Second))
}

type waiter struct {
	*request
	ready chan struct{}
	sent  bool
}

func newLimiter(qps float32, burst int) *limiter {
	now := time.Now()
	l := &limiter{
		all:     bucket{rate: float64(qps), most: float64(burst), tokens: float64(burst), at: now},
		retries: bucket{rate: float64(qps) / retryShare, most: max(1, float64(burst)/retryShare), at: now},
	}
	l.retries.tokens = l.retries.most
	return l
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
	var turn *Turn
	if r != nil {
		turn = r.turn
	}
	changed := turn.Changed()
	l.mu.Lock()
	if turn == nil && l.tooLate(ctx) {
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
			changed = turn.Changed()
			l.mu.Lock()
			l.dispatch()
			l.mu.Unlock()
		case <-ctx.Done():
			l.mu.Lock()
			defer l.mu.Unlock()
			if w.sent { // in this moment; another takes the token
				l.all.tokens++
			}
			l.waiting = slices.DeleteFunc(l.waiting, func(x *waiter) bool { return x == w })
			l.dispatch()
			return ctx.Err()
		}
	}
}

// tooLate tells that a request without a turn would be sent after its deadline
// only.
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
	l.all.refill(now)
	late := time.Duration(max(0, before+1-l.all.tokens) / l.all.rate * float64(time.Second))
	return now.Add(late).After(deadline)
}

// dispatch lets requests pass as long as there are tokens, and sets the timer
// for the next token when others wait. The caller holds the lock.
func (l *limiter) dispatch() {
	now := time.Now()
	l.all.refill(now)
	l.retries.refill(now)
	if l.timer != nil {
		l.timer.Stop()
		l.timer = nil
	}
	for len(l.waiting) > 0 {
		if l.all.tokens < 1 {
			l.wake(l.all.left())
			return
		}
		i := l.next()
		if i < 0 { // retries only, and their share is used up
			l.wake(max(l.all.left(), l.retries.left()))
			return
		}
		w := l.waiting[i]
		if c, _ := w.place(); c == classRetry {
			l.retries.tokens--
		}
		l.all.tokens--
		l.waiting = slices.Delete(l.waiting, i, i+1)
		w.sent = true
		close(w.ready)
	}
}

func (l *limiter) wake(after time.Duration) {
	// A token must be whole when the timer fires, whatever was rounded.
	l.timer = time.AfterFunc(after+time.Microsecond, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.dispatch()
	})
}

// next chooses the request that is sent next, or returns -1.
func (l *limiter) next() int {
	best, oldest := -1, -1
	var bestClass class
	var bestRank rank
	for i, w := range l.waiting {
		c, r := w.place()
		if c == classOwn {
			return i
		}
		if c == classRetry && l.retries.tokens < 1 {
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
	l.all.refill(time.Now())
	if len(l.waiting) > 0 || l.all.tokens < 1 {
		return false
	}
	l.all.tokens--
	return true
}

// Accept implements flowcontrol.RateLimiter.
func (l *limiter) Accept() { _ = l.Wait(context.Background()) }

// Stop implements flowcontrol.RateLimiter.
func (l *limiter) Stop() {}

// QPS implements flowcontrol.RateLimiter.
func (l *limiter) QPS() float32 { return float32(l.all.rate) }
