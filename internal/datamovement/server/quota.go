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

// recountAfter is the maximum age of the count on which a refusal is based. It limits the
// requests that a user at the limit causes.
const recountAfter = 5 * time.Second

// quota counts the existing data movements of this node and their bytes, for each user.
// Their number is limited, because each movement is part of every list and takes memory
// in the watch that all users share.
//
// The movements are counted by a list from the API server before the first creation;
// afterwards the daemon updates the count when it creates and deletes movements. The end
// of a workflow also deletes movements. To account for that, movements are counted again
// before a creation is refused. So the count can be too high for a while, but never too
// low.
type quota struct {
	turn chan struct{} // held while counting

	mu      sync.Mutex
	users   map[int64]*usage // by spec.userId
	counted time.Time        // when the last count started; zero: never
	pending int              // number of the last reservation
	dropped map[string]bool  // deleted during a count; nil otherwise
}

// usage has the existing movements of one user.
type usage struct {
	items map[string]item // by namespace and name; by a number until the name is known
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

// put adds or replaces an item. The caller holds mu.
func (q *quota) put(uid int64, key string, bytes int64, at time.Time) {
	h := q.users[uid]
	if h == nil {
		h = &usage{items: make(map[string]item)}
		q.users[uid] = h
	}
	h.bytes += bytes - h.items[key].bytes
	h.items[key] = item{bytes, at}
}

// remove removes an item. The caller holds mu.
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

// drop removes a deleted movement.
func (q *quota) drop(dm *nnf.DataMovement) {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := quotaKey(dm.Namespace, dm.Name)
	q.remove(dm.Spec.UserID, key)
	if q.dropped != nil {
		q.dropped[key] = true
	}
}

// over returns the setting that another movement of that size would exceed, and a
// description of the user's movements; empty if none. The caller holds mu.
func (q *quota) over(uid, bytes int64, most Limits) (setting, have string) {
	h := q.users[uid]
	if h == nil {
		h = new(usage)
	}
	switch {
	case len(h.items) >= most.Movements:
		return "limits.movements_per_user", fmt.Sprintf("user %d has %d data movements on this node", uid, len(h.items))
	case h.bytes+bytes > most.MovementBytes:
		return "limits.movement_bytes_per_user", fmt.Sprintf("user %d has %d data movements on this node with %d KiB of paths and output", uid, len(h.items), h.bytes>>10)
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

// commit replaces the reservation by the created movement.
func (r *reservation) commit(dm *nnf.DataMovement) {
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.remove(r.uid, r.key)
	key := quotaKey(dm.Namespace, dm.Name)
	r.q.put(r.uid, key, r.bytes, time.Now())
	delete(r.q.dropped, key) // that was an earlier movement with this name
}

// rollBack releases the reservation, unless the movement may have been created despite
// the error: the next count determines that.
func (r *reservation) rollBack(err error) {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Code >= http.StatusInternalServerError {
		return
	}
	r.q.mu.Lock()
	defer r.q.mu.Unlock()
	r.q.remove(r.uid, r.key)
}

// reserve reserves quota for dm, which c is about to create. Root is not limited.
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

// count counts the existing movements, unless another call has done so since the count
// at the time known.
func (s *Service) count(ctx context.Context, known time.Time) error {
	q := s.quota
	select {
	case q.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.turn }()
	start := time.Now()
	q.mu.Lock()
	if !q.counted.Equal(known) {
		q.mu.Unlock()
		return nil
	}
	q.dropped = make(map[string]bool)
	q.mu.Unlock()
	items, err := s.movements(shared(ctx), map[string]string{api.LabelInitiator: s.o.Node})
	q.mu.Lock()
	defer q.mu.Unlock()
	dropped := q.dropped
	q.dropped = nil
	if err != nil {
		return err
	}
	before := q.users
	q.users, q.counted = make(map[int64]*usage), start
	for _, dm := range items {
		if key := quotaKey(dm.Namespace, dm.Name); !dropped[key] {
			q.put(dm.Spec.UserID, key, datamovement.Size(dm), start)
		}
	}
	for uid, h := range before { // items that the list may not include yet
		for key, i := range h.items {
			if !i.at.Before(start) {
				q.put(uid, key, i.bytes, i.at)
			}
		}
	}
	return nil
}

// used returns the number of existing movements of a user and their bytes, counted at most
// recountAfter ago.
func (s *Service) used(ctx context.Context, uid int64) (movements, bytes int64, err error) {
	q := s.quota
	q.mu.Lock()
	counted := q.counted
	q.mu.Unlock()
	if counted.IsZero() || time.Since(counted) >= recountAfter {
		if err := s.count(ctx, counted); err != nil {
			return 0, 0, err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	if h := q.users[uid]; h != nil {
		movements, bytes = int64(len(h.items)), h.bytes
	}
	return movements, bytes, nil
}
