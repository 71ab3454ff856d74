package unixsocket

import (
	"container/list"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Quota is the limit of one user.
type Quota struct {
	Slots int     // at the same time; 0: no limit
	Rate  float64 // events per second, on average; 0: no limit
	Burst int     // events without delay before Rate applies; values below 1 mean 1
}

// LimiterOptions are the limits of a Limiter.
type LimiterOptions struct {
	What  string // plural, for messages: "connections"
	User  Quota  // each uid except 0
	Root  Quota  // uid 0; the zero Quota has no limits
	Total int    // slots of all users together; root may take the same number in addition; 0: no limit
	// Reserve is how many slots of Total only users without a slot may take.
	Reserve int
}

// Limiter counts the slots and the events of each user. Every call takes constant time.
// It keeps the accounts of users with a slot, and of users whose burst has not refilled;
// later calls remove the latter, there is no timer. Its methods may be called
// concurrently; those of a nil *Limiter allow everything.
type Limiter struct {
	mu     sync.Mutex
	o      LimiterOptions
	taken  int // slots of all users
	users  map[uint32]*account
	unused list.List // accounts without a slot, the next one to check first
}

// account is the account of one user.
type account struct {
	uid    uint32
	slots  int
	bucket *rate.Limiter // nil before the first event
	rest   *list.Element // in unused, or nil
}

// bucketFor returns the account's token bucket with these limits. If the limits change,
// the used part of the burst remains used, and the rest of the new burst is available.
func (a *account) bucketFor(now time.Time, limit rate.Limit, burst int) *rate.Limiter {
	old := a.bucket
	if old != nil && old.Limit() == limit && old.Burst() == burst {
		return old
	}
	a.bucket = rate.NewLimiter(limit, burst)
	if old != nil {
		used := min(math.Ceil(float64(old.Burst())-old.TokensAt(now)), float64(burst))
		a.bucket.AllowN(now, int(used))
	}
	return a.bucket
}

// refilling reports whether part of the burst is used.
func (a *account) refilling() bool {
	return a.bucket != nil && a.bucket.Tokens() < float64(a.bucket.Burst())
}

// NewLimiter returns a Limiter. Negative numbers mean 0.
func NewLimiter(o LimiterOptions) *Limiter {
	return &Limiter{o: o, users: make(map[uint32]*account)}
}

// Set changes the limits. Slots above a new limit remain until they are released.
func (l *Limiter) Set(o LimiterOptions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o = o
}

// Acquire takes a slot for uid until release is called; further calls of release have no
// effect. The error is a *LimitError.
func (l *Limiter) Acquire(uid uint32) (release func(), err error) {
	if l == nil {
		return func() {}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	quota, total := l.quota(uid)
	have := 0
	if a := l.users[uid]; a != nil {
		have = a.slots
	}
	if quota.Slots > 0 && have >= quota.Slots {
		return nil, &LimitError{UID: uid, What: l.o.What, Limit: quota.Slots}
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
	a := l.users[uid] // exists, because it has a slot
	a.slots--
	l.taken--
	l.settle(a)
}

// Allow counts one event of uid towards its rate. The error is a *LimitError with the
// time until the next event is allowed; refused events do not count.
func (l *Limiter) Allow(uid uint32) error {
	if l == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	quota, _ := l.quota(uid)
	if !(quota.Rate > 0) {
		return nil
	}
	a := l.account(uid)
	defer l.settle(a)
	burst := max(quota.Burst, 1)
	now := time.Now()
	bucket := a.bucketFor(now, rate.Limit(quota.Rate), burst)
	if bucket.AllowN(now, 1) {
		return nil
	}
	seconds := min((1-bucket.TokensAt(now))/quota.Rate, maxRetryAfter.Seconds())
	wait := time.Duration(seconds * float64(time.Second))
	wait = (wait + time.Microsecond - 1).Truncate(time.Microsecond) // rounded up: no shorter wait is enough
	return &LimitError{UID: uid, What: l.o.What, Limit: burst, Rate: quota.Rate, RetryAfter: wait}
}

// maxRetryAfter is the longest wait in a LimitError.
const maxRetryAfter = 24 * time.Hour

// InUse returns the number of slots of uid and of all users.
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

func (l *Limiter) quota(uid uint32) (s Quota, total int) {
	if uid == 0 {
		// Root can inspect a node whose users have taken all slots.
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

// settle is called after each change of an account. It checks a few accounts without a
// slot, in turn, and removes those whose burst has refilled. A call adds at most one
// account and checks four, so that few unneeded accounts remain.
func (l *Limiter) settle(a *account) {
	if a.rest != nil {
		l.unused.Remove(a.rest)
		a.rest = nil
	}
	if a.slots == 0 {
		a.rest = l.unused.PushBack(a)
	}
	for range 4 {
		e := l.unused.Front()
		if e == nil {
			return
		}
		old := e.Value.(*account)
		if old.refilling() {
			l.unused.MoveToBack(e)
		} else {
			l.unused.Remove(e)
			old.rest = nil
			delete(l.users, old.uid)
		}
		if old == a { // all others have been checked
			return
		}
	}
}

// LimitError reports that a user has reached a limit. Its text is for the caller, and
// contains nothing about other users.
type LimitError struct {
	UID        uint32
	What       string        // LimiterOptions.What
	Limit      int           // slots, or the burst of a rate
	Rate       float64       // per second; 0: the slots were the limit
	Shared     bool          // the limit of all users together
	RetryAfter time.Duration // 0: until a slot is released
}

func (e *LimitError) Error() string {
	switch {
	case e.Rate > 0:
		return fmt.Sprintf("too many %s of uid %d: the limit is %g per second after the first %d; try again in %s",
			e.What, e.UID, e.Rate, e.Limit, e.RetryAfter.Round(time.Millisecond))
	case e.Shared:
		return fmt.Sprintf("too many %s on this node: the limit for all users is %d; try again later", e.What, e.Limit)
	}
	return fmt.Sprintf("too many %s of uid %d: the limit is %d at once; wait until one ends", e.What, e.UID, e.Limit)
}
