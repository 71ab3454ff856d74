package unixsocket

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"
)

const (
	// summaryAfter is the time from the first suppressed record until Suppressed is
	// called.
	summaryAfter = 5 * time.Second
	// summaryUsers limits the users with a separate summary; the rest share one.
	summaryUsers = 8
	// recordUsers is the rate of all users together, as a multiple of the rate of one.
	recordUsers = 8
	// countedUsers limits the users whose suppressed records are counted separately.
	countedUsers = 1024
)

// RecordOptions limit the log records that callers cause.
type RecordOptions struct {
	Rate  float64 // records per second and user, on average; 0: no limit
	Burst int     // records of one user before Rate applies

	// Suppressed is called some seconds after records were suppressed, once for each
	// user. If there are many users, the last call is for all remaining ones. May be nil.
	Suppressed func(Suppressed)
}

// Suppressed reports how many records were not logged.
type Suppressed struct {
	UID   uint32 // valid if Users is 1
	Users int    // 0: more users than were counted
	Count int
}

// Records limits the log records that callers cause. Each user, including root, has a
// token bucket, and all users together have another one: there can be many users,
// because a user namespace gives each user thousands of IDs. Its methods may be called
// concurrently; a nil *Records allows everything.
type Records struct {
	users, all *Limiter

	mu     sync.Mutex
	report func(Suppressed)
	counts map[uint32]int
	others int // of users that are not in counts
	timer  *time.Timer
	closed bool
}

// NewRecords returns a Records. Close must be called.
func NewRecords(o RecordOptions) *Records {
	r := &Records{report: o.Suppressed, counts: make(map[uint32]int), users: NewLimiter(LimiterOptions{}), all: NewLimiter(LimiterOptions{})}
	r.Set(o.Rate, o.Burst)
	return r
}

// Set changes rate and burst.
func (r *Records) Set(rate float64, burst int) {
	one := Quota{Rate: rate, Burst: burst}
	r.users.Set(LimiterOptions{What: "records", User: one, Root: one})
	r.all.Set(LimiterOptions{What: "records", Root: Quota{Rate: recordUsers * rate, Burst: recordUsers * burst}})
}

// Allow counts one record caused by uid, and reports whether to log it.
func (r *Records) Allow(uid uint32) bool {
	if r == nil || r.users.Allow(uid) == nil && r.all.Allow(0) == nil {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	if _, known := r.counts[uid]; known || len(r.counts) < countedUsers {
		r.counts[uid]++
	} else {
		r.others++
	}
	if r.timer == nil {
		r.timer = time.AfterFunc(summaryAfter, r.summarize)
	}
	return false
}

func (r *Records) summarize() {
	r.mu.Lock()
	counts, others := r.counts, r.others
	r.counts, r.others, r.timer = make(map[uint32]int), 0, nil
	r.mu.Unlock()
	if r.report == nil {
		return
	}
	uids := slices.SortedFunc(maps.Keys(counts), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	rest := Suppressed{Count: others}
	for i, uid := range uids {
		if i < summaryUsers {
			r.report(Suppressed{UID: uid, Users: 1, Count: counts[uid]})
			continue
		}
		rest.Count += counts[uid]
		if rest.Users++; rest.Users == 1 {
			rest.UID = uid
		}
	}
	if rest.Count > 0 {
		if others > 0 {
			rest.Users = 0
		}
		r.report(rest)
	}
}

// Close calls Suppressed for records that were suppressed since the last call. After
// Close nothing is counted.
func (r *Records) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	pending := !r.closed && r.timer != nil && r.timer.Stop()
	r.closed = true
	r.mu.Unlock()
	if pending {
		r.summarize()
	}
}
