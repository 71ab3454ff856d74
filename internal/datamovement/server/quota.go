package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// recountAfter is how old a count of what exists may be when a creation is
// refused. It bounds what a user at the limit costs the API server.
const recountAfter = 5 * time.Second

// quota counts the data movements of this node that exist, and their bytes, for
// each user. Each is in every list and in the memory of the watch that all users
// share, so their number is limited.
//
// The count is taken from the API server before the first creation, and kept by
// what the daemon creates and deletes. The end of a workflow also deletes
// movements, which is noticed when a user reaches a limit: movements are counted
// again before a creation is refused. So the count may be too high for a while
// but not too low.
type quota struct {
	turn chan struct{} // held while counting

	mu      sync.Mutex
	users   map[int64]*usage // by spec.userId
	counted time.Time        // when the last count started; zero: never
	pending int              // names the next reservation
	dropped map[string]bool  // while counting: deleted meanwhile
}

// usage is what exists of one user.
type usage struct {
	items map[string]item // by namespace and name; by a number before the name is known
	bytes int64
}

type item struct {
	bytes int64
	at    time.Time
}

func newQuota() *quota {
	return &quota{turn: make(chan struct{}, 1), users: make(map[int64]*usage)}
}

func quotaKey(namespace, name string) string { return namespace + "/" + name }

// put is called under mu.
func (q *quota) put(uid int64, key string, bytes int64, at time.Time) {
	h := q.users[uid]
	if h == nil {
		h = &usage{items: make(map[string]item)}
		q.users[uid] = h
	}
	h.bytes += bytes - h.items[key].bytes
	h.items[key] = item{bytes, at}
}

// remove is called under mu.
func (q *quota) remove(uid int64, key string) {
	h := q.users[uid]
	if h == nil {
		return
	}
	h.bytes -= h.items[key].bytes
	if delete(h.items, key); len(h.items) == 0 {
		delete(q.users, uid)
	}
}

// drop forgets a movement that was deleted.
func (q *quota) drop(dm *nnf.DataMovement) {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := quotaKey(dm.Namespace, dm.Name)
	q.remove(dm.Spec.UserID, key)
	if q.dropped != nil {
		q.dropped[key] = true
	}
}

// over returns the setting that one more of that size would exceed, and what
// there is. It is called under mu.
func (q *quota) over(uid, bytes int64, most Limits) (setting, have string) {
	h := q.users[uid]
	if h == nil {
		h = new(usage)
	}
	switch {
	case len(h.items) >= most.Movements:
		return "limits.movements_per_user", fmt.Sprintf("%d data movements of user %d", len(h.items), uid)
	case h.bytes+bytes > most.MovementBytes:
		return "limits.movement_bytes_per_user", fmt.Sprintf("%d data movements of user %d with %d KiB of paths and output", len(h.items), uid, h.bytes>>10)
	}
	return "", ""
}

// reservation is the quota of a movement that is being created.
type reservation struct {
	q     *quota
	uid   int64
	key   string
	bytes int64
}

// made replaces the reservation by the movement that was created.
func (r *reservation) made(dm *nnf.DataMovement) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.remove(r.uid, r.key)
	key := quotaKey(dm.Namespace, dm.Name)
	r.q.put(r.uid, key, r.bytes, time.Now())
	delete(r.q.dropped, key) // of an earlier one of that name
}

// failed gives the reservation back, unless the movement may have been created
// all the same: the next count shows whether it was.
func (r *reservation) failed(err error) {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Code >= http.StatusInternalServerError {
		return
	}
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.remove(r.uid, r.key)
}

// reserve reserves quota for dm, which c wants to create. Root is not limited.
func (s *Service) reserve(ctx context.Context, c datamovement.Caller, dm *nnf.DataMovement) (*reservation, error) {
	q, most := s.quota, s.settings.Load().Limits
	uid, bytes := dm.Spec.UserID, datamovement.Size(dm)
	for again := true; ; again = false {
		q.mu.Lock()
		counted := q.counted
		setting, have := q.over(uid, bytes, most)
		if !counted.IsZero() && (setting == "" || c.UID == 0) {
			q.pending++
			r := &reservation{q, uid, strconv.Itoa(q.pending), bytes}
			q.put(uid, r.key, bytes, time.Now())
			q.mu.Unlock()
			return r, nil
		}
		q.mu.Unlock()
		if !again || !counted.IsZero() && time.Since(counted) < recountAfter {
			f := datamovement.TooManyMovements(setting, have)
			s.record(c, datamovement.Describe(dm), f.Error())
			return nil, f
		}
		if err := s.count(ctx, counted); err != nil {
			return nil, err
		}
	}
}

// count counts what exists, unless that was done since the count that is known
// to the caller.
func (s *Service) count(ctx context.Context, known time.Time) error {
	q := s.quota
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.turn }()
	begin := time.Now()
	q.mu.Lock()
	if !q.counted.Equal(known) {
		q.mu.Unlock()
		return nil
	}
	q.dropped = make(map[string]bool)
	q.mu.Unlock()
	var items []*nnf.DataMovement
	err := s.api.list(shared(ctx), kindMovement, "", map[string]string{api.LabelInitiator: s.o.Node}, false, &items)
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped := q.dropped
	q.dropped = nil
	if err != nil {
		return err
	}
	before := q.users
	q.users, q.counted = make(map[int64]*usage), begin
	for _, dm := range items {
		if key := quotaKey(dm.Namespace, dm.Name); !dropped[key] {
			q.put(dm.Spec.UserID, key, datamovement.Size(dm), begin)
		}
	}
	for uid, h := range before { // what the list may be too old for
		for key, i := range h.items {
			if !i.at.Before(begin) {
				q.put(uid, key, i.bytes, i.at)
			}
		}
	}
	return nil
}
