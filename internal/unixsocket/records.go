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
	// summaryUsers bounds the summaries of one time; the rest share one.
	summaryUsers = 8
	// recordUsers is how many times the rate of one user all users together have.
	recordUsers = 8
	// countedUsers bounds the users whose suppressed records are counted apart.
	countedUsers = 1024
)

// RecordOptions limit the log records that callers cause.
type RecordOptions struct {
	Rate  float64 // records per second and user, on average; 0: any number
	Burst int     // records of one user at once

	// Suppressed is called when records were suppressed, some seconds later, once
	// for each user: with many users at once, the last call is for all the others.
	// May be nil.
	Suppressed func(Suppressed)
}

// Suppressed reports how many records were not logged.
type Suppressed struct {
	UID   uint32 // when Users is 1
	Users int    // 0: more than were counted
	Count int
}

// Records decides which of the log records that callers cause are logged. Each
// user, root included, has a token bucket, and so have all users together: users
// may be many, because a user namespace gives each user thousands of ids. All
// methods may be called by several goroutines; a nil *Records allows everything.
type Records struct {
	users, all *Limiter

	mu     sync.Mutex
	tell   func(Suppressed)
	counts map[uint32]int
	others int // of users that are not in counts
	timer  *time.Timer
	closed bool
}

// NewRecords makes a Records. Close must be called.
func NewRecords(o RecordOptions) *Records {
	r := &Records{tell: o.Suppressed, counts: make(map[uint32]int), users: NewLimiter(LimiterOptions{}), all: NewLimiter(LimiterOptions{})}
	r.Set(o.Rate, o.Burst)
	return r
}

// Set changes rate and burst.
func (r *Records) Set(rate float64, burst int) {
	one := Quota{Rate: rate, Burst: burst}
	r.users.Set(LimiterOptions{What: "records", User: one, Root: one})
	r.all.Set(LimiterOptions{What: "records", Root: Quota{Rate: recordUsers * rate, Burst: recordUsers * burst}})
}

// Allow counts one record that uid causes, and reports whether to log it.
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
	if r.tell == nil {
		return
	}
	uids := slices.SortedFunc(maps.Keys(counts), func(a, b uint32) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	rest := Suppressed{Count: others}
	for i, uid := range uids {
		if i < summaryUsers {
			r.tell(Suppressed{UID: uid, Users: 1, Count: counts[uid]})
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
		r.tell(rest)
	}
}

// Close calls Suppressed for what was suppressed since the last time. Afterwards
// nothing is counted.
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
