package unixsocket

import (
	"container/list"
	"math"
	"sync"
	"time"
)

// Share is what one user may take.
type Share struct {
	Slots int     // at the same time; 0: any number
	Rate  float64 // per second, on average; 0: any number
	Burst int     // at once before Rate counts; less than 1 is 1
}

// LimiterOptions are limits for one kind of thing.
type LimiterOptions struct {
	What  string // plural, for messages: "connections"
	User  Share  // each uid except 0
	Root  Share  // uid 0; the zero Share has no limits
	Total int    // slots of all users together; root may take as many again; 0: any number
	// Reserve is how many slots of Total only users without a slot may take.
	Reserve int
}

// Limiter counts what users hold and how often they ask. Every call takes
// constant time. It remembers users who hold something, and those whose burst
// has not refilled; the latter are forgotten by later calls, not by a timer.
// All methods may be called by several goroutines; those of a nil *Limiter
// allow everything.
type Limiter struct {
	mu      sync.Mutex
	o       LimiterOptions
	taken   int // slots of all users
	users   map[uint32]*account
	resting list.List // accounts without a slot, next to be looked at first
}

// account is one user's.
type account struct {
	uid   uint32
	slots int
	// full is when the burst will be whole again. It moves by 1/Rate with each
	// event; that is a token bucket in one number (GCRA, ITU-T I.371).
	full time.Time
	rest *list.Element // in resting, or nil
}

// NewLimiter makes a Limiter; negative numbers count as 0.
func NewLimiter(o LimiterOptions) *Limiter {
	return &Limiter{o: o, users: make(map[uint32]*account)}
}

// Set changes the limits. Slots above a new limit stay until released.
func (l *Limiter) Set(o LimiterOptions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o = o
}

// Acquire takes a slot for uid until release, which may be called again without
// effect. The error is a *LimitError.
func (l *Limiter) Acquire(uid uint32) (release func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	share, total := l.share(uid)
	have := 0
	if a := l.users[uid]; a != nil {
		have = a.slots
	}
	if share.Slots > 0 && have >= share.Slots {
		return nil, &LimitError{UID: uid, What: l.o.What, Limit: share.Slots}
	}
	free := total - l.taken
	if have > 0 && uid != 0 {
		free -= l.o.Reserve
	}
	if total > 0 && free <= 0 {
		return nil, &LimitError{UID: uid, What: l.o.What, Limit: l.o.Total, Shared: true}
	}
	a := l.account(uid)
	a.slots++
	l.taken++
	l.settle(a)
	return sync.OnceFunc(func() { l.release(uid) }), nil
}

func (l *Limiter) release(uid uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a := l.users[uid] // there, because it has a slot
	a.slots--
	l.taken--
	l.settle(a)
}

// Allow counts one event of uid against its rate. The error is a *LimitError
// that says when the next one would be allowed; a refused event costs nothing.
func (l *Limiter) Allow(uid uint32) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	share, _ := l.share(uid)
	if !(share.Rate > 0) {
		return nil
	}
	a := l.account(uid)
	defer l.settle(a)
	now := time.Now()
	burst := max(share.Burst, 1)
	each := interval(share.Rate)
	if a.full.Before(now) {
		a.full = now
	}
	// With the whole burst used, full is burst × each away.
	if wait := a.full.Sub(now) - time.Duration(saturate(float64(burst-1)*float64(each))); wait > 0 {
		return &LimitError{UID: uid, What: l.o.What, Limit: burst, Rate: share.Rate, RetryAfter: wait}
	}
	a.full = a.full.Add(each)
	return nil
}

// InUse is how many slots uid holds, and how many all users hold.
func (l *Limiter) InUse(uid uint32) (user, all int) {
	if l == nil {
		return 0, 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if a := l.users[uid]; a != nil {
		user = a.slots
	}
	return user, l.taken
}

// remembered is how many users there are accounts of, for tests.
func (l *Limiter) remembered() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.users)
}

func (l *Limiter) share(uid uint32) (s Share, total int) {
	if uid == 0 {
		// So that root can look at a node that its users have filled.
		return l.o.Root, 2 * l.o.Total
	}
	return l.o.User, l.o.Total
}

func (l *Limiter) account(uid uint32) *account {
	a := l.users[uid]
	if a == nil {
		a = &account{uid: uid}
		l.users[uid] = a
	}
	return a
}

// settle is called after each change of an account. It looks at a few of those
// without a slot, in turn, and forgets the ones whose burst is whole. A call adds
// one account at most and looks at four, so that those that are there for
// nothing stay few.
func (l *Limiter) settle(a *account) {
	if a.rest != nil {
		l.resting.Remove(a.rest)
		a.rest = nil
	}
	if a.slots == 0 {
		a.rest = l.resting.PushBack(a)
	}
	now := time.Now()
	for range 4 {
		e := l.resting.Front()
		if e == nil {
			return
		}
		old := e.Value.(*account)
		if old.full.After(now) {
			l.resting.MoveToBack(e)
		} else {
			l.resting.Remove(e)
			old.rest = nil
			delete(l.users, old.uid)
		}
		if old == a { // all have been looked at, or will be
			return
		}
	}
}

// interval is the time between two events: a day at most, so that sums of it
// stay in range.
func interval(rate float64) time.Duration {
	return time.Duration(min(float64(time.Second)/rate, float64(24*time.Hour)))
}

func saturate(ns float64) int64 {
	if ns >= math.MaxInt64/4 {
		return math.MaxInt64 / 4
	}
	return int64(ns)
}
