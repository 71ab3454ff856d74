package server

import (
	"container/list"
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// requestsPerUser is how many requests to the API server one user may have under
// way.
const requestsPerUser = 8

// APIShare is how many requests to the API server all users together may cause,
// and which part of them one user. A QPS of 0 is no limit.
type APIShare struct {
	QPS, Burst int
	Percent    int // of both, for one user
}

// fairQueue schedules the users' requests to the API server: one of each user after
// the other, as fast as all users together may send, and no user more than a
// share of that. So a user waits for one request of each other user, however many
// those send, and a user with a free share does not wait. The zero value has no
// limit.
type fairQueue struct {
	mu    sync.Mutex
	share APIShare
	all   *rate.Limiter // nil: no limit
	users map[uint32]*userQueue
	ready list.List // queues with waiting requests, next to be served first
	timer *time.Timer
	swept time.Time
}

// userQueue is one user's. It is forgotten when it is empty and its bucket is full.
type userQueue struct {
	uid     uint32
	bucket  *rate.Limiter // nil: no limit
	under   int           // requests under way
	waiting list.List     // of *ticket
	place   *list.Element // in ready, or nil
}

// ticket is one waiting request.
type ticket struct {
	granted chan struct{}
	place   *list.Element // nil once it is granted
}

// set changes the limits.
func (t *fairQueue) set(s APIShare) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == t.share {
		return
	}
	t.share, t.all = s, nil
	if s.QPS > 0 {
		t.all = rate.NewLimiter(rate.Limit(s.QPS), max(s.Burst, 1))
	}
	for _, q := range t.users {
		q.bucket = t.bucket()
	}
	t.serve()
}

func (t *fairQueue) bucket() *rate.Limiter {
	if t.share.QPS <= 0 {
		return nil
	}
	part := float64(t.share.Percent) / 100
	return rate.NewLimiter(rate.Limit(float64(t.share.QPS)*part), max(int(float64(t.share.Burst)*part), 1))
}

// run calls f when it is the turn of the caller in ctx. Requests of the daemon
// itself, which have no caller, do not wait but count for the limit of all.
func (t *fairQueue) run(ctx context.Context, f func() error) error {
	c, ok := ctx.Value(callerKey{}).(datamovement.Caller)
	if !ok {
		t.mu.Lock()
		if t.all != nil {
			t.all.ReserveN(time.Now(), 1)
		}
		t.mu.Unlock()
		return f()
	}
	q, k := t.enter(c.UID)
	select {
	case <-k.granted:
	case <-ctx.Done():
		if !t.leave(q, k) {
			return context.Cause(ctx)
		}
		<-k.granted // at the same moment
		t.done(q)
		return context.Cause(ctx)
	}
	defer t.done(q)
	return f()
}

func (t *fairQueue) enter(uid uint32) (*userQueue, *ticket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	q := t.users[uid]
	if q == nil {
		if t.users == nil {
			t.users = make(map[uint32]*userQueue)
		}
		q = &userQueue{uid: uid, bucket: t.bucket()}
		t.users[uid] = q
	}
	k := &ticket{granted: make(chan struct{})}
	k.place = q.waiting.PushBack(k)
	if q.place == nil {
		q.place = t.ready.PushBack(q)
	}
	t.serve()
	return q, k
}

// leave takes back a request that is still waiting; granted tells that it is not.
func (t *fairQueue) leave(q *userQueue, k *ticket) (granted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.place == nil {
		return true
	}
	t.remove(q, k)
	t.forget(q)
	return false
}

func (t *fairQueue) remove(q *userQueue, k *ticket) {
	q.waiting.Remove(k.place)
	k.place = nil
	if q.waiting.Len() == 0 && q.place != nil {
		t.ready.Remove(q.place)
		q.place = nil
	}
}

func (t *fairQueue) done(q *userQueue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q.under--
	t.forget(q)
	t.serve()
}

// serve grants what may go out now, and makes sure that it is called again. It
// is called under mu.
func (t *fairQueue) serve() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	again := time.Duration(-1)
	later := func(l *rate.Limiter, now time.Time) bool {
		if l == nil || l.TokensAt(now) >= 1 {
			return false
		}
		d := time.Duration((1-l.TokensAt(now))/float64(l.Limit())*float64(time.Second)) + time.Microsecond
		if again < 0 || d < again {
			again = d
		}
		return true
	}
	now := time.Now()
rounds:
	for granted := true; granted; {
		granted = false
		e := t.ready.Front()
		for range t.ready.Len() {
			q, next := e.Value.(*userQueue), e.Next()
			switch {
			case q.under >= requestsPerUser || later(q.bucket, now):
			case later(t.all, now):
				break rounds
			default:
				t.grant(q, now)
				granted = true
			}
			e = next
		}
	}
	if again >= 0 {
		t.timer = time.AfterFunc(again, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.serve()
		})
	}
}

// grant sends the first request of q and moves q to the end of the line.
func (t *fairQueue) grant(q *userQueue, now time.Time) {
	for _, l := range []*rate.Limiter{t.all, q.bucket} {
		if l != nil {
			l.AllowN(now, 1)
		}
	}
	k := q.waiting.Front().Value.(*ticket)
	q.under++
	t.remove(q, k)
	close(k.granted)
	if q.place != nil {
		t.ready.MoveToBack(q.place)
	}
}

// forget drops a queue that carries no state. It is called under mu.
func (t *fairQueue) forget(q *userQueue) {
	if q.under == 0 && q.waiting.Len() == 0 && (q.bucket == nil || q.bucket.Tokens() >= float64(q.bucket.Burst())) {
		delete(t.users, q.uid)
	}
}

// sweep forgets, once a second, the users whose buckets have refilled. It is
// called under mu.
func (t *fairQueue) sweep() {
	if now := time.Now(); now.Sub(t.swept) >= time.Second {
		t.swept = now
		for _, q := range t.users {
			t.forget(q)
		}
	}
}

// shared is ctx for a request whose answer all users share, so that none of them
// waits for the turn of another.
func shared(ctx context.Context) context.Context { return context.WithValue(ctx, callerKey{}, nil) }
