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
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// recountAfter is how long a count of what exists is good enough to refuse a
// creation. It bounds what a user at the limit costs the API server.
const recountAfter = 5 * time.Second

// living counts the data movements of this node that exist, and their bytes, for
// each user. Each is in every list and in the memory of the watch that all users
// share, so no user may have any number of them.
//
// The count is taken from the API server before the first creation, and kept by
// what the daemon creates and deletes. The end of a workflow also deletes
// movements, which is noticed when a user reaches a limit: movements are counted
// again before a creation is refused. So the count may be too high for a while
// but not too low.
type living struct {
	turn chan struct{} // held while counting

	mu      sync.Mutex
	users   map[int64]*holding // by spec.userId
	counted time.Time          // when the last count started; zero: never
	pending int                // names the next reservation
	dropped map[string]bool    // while counting: deleted meanwhile
}

// holding is what exists of one user.
type holding struct {
	items map[string]held // by namespace and name; by a number before the name is known
	bytes int64
}

type held struct {
	bytes int64
	at    time.Time
}

func newLiving() *living {
	return &living{turn: make(chan struct{}, 1), users: make(map[int64]*holding)}
}

func livingKey(namespace, name string) string { return namespace + "/" + name }

// put is called under mu.
func (l *living) put(uid int64, key string, bytes int64, at time.Time) {
	h := l.users[uid]
	if h == nil {
		h = &holding{items: make(map[string]held)}
		l.users[uid] = h
	}
	h.bytes += bytes - h.items[key].bytes
	h.items[key] = held{bytes, at}
}

// remove is called under mu.
func (l *living) remove(uid int64, key string) {
	h := l.users[uid]
	if h == nil {
		return
	}
	h.bytes -= h.items[key].bytes
	if delete(h.items, key); len(h.items) == 0 {
		delete(l.users, uid)
	}
}

// drop forgets a movement that was deleted.
func (l *living) drop(dm *nnf.DataMovement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := livingKey(dm.Namespace, dm.Name)
	l.remove(dm.Spec.UserID, key)
	if l.dropped != nil {
		l.dropped[key] = true
	}
}

// over returns the setting that one more of that size would exceed, and what
// there is. It is called under mu.
func (l *living) over(uid, bytes int64, most Limits) (setting, have string) {
	h := l.users[uid]
	if h == nil {
		h = new(holding)
	}
	switch {
	case len(h.items) >= most.Movements:
		return "limits.movements_per_user", fmt.Sprintf("%d data movements of user %d", len(h.items), uid)
	case h.bytes+bytes > most.MovementBytes:
		return "limits.movement_bytes_per_user", fmt.Sprintf("%d data movements of user %d with %d KiB of paths and output", len(h.items), uid, h.bytes>>10)
	}
	return "", ""
}

// reservation is the place of a movement that is being created.
type reservation struct {
	l     *living
	uid   int64
	key   string
	bytes int64
}

// made says which movement was created.
func (r *reservation) made(dm *nnf.DataMovement) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.remove(r.uid, r.key)
	key := livingKey(dm.Namespace, dm.Name)
	r.l.put(r.uid, key, r.bytes, time.Now())
	delete(r.l.dropped, key) // of an earlier one of that name
}

// failed gives the place back, unless the movement may have been created all the
// same: that is found out when what exists is counted.
func (r *reservation) failed(err error) {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) || answer.Status().Code >= http.StatusInternalServerError {
		return
	}
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	r.l.remove(r.uid, r.key)
}

// reserve takes a place for dm, which c wants to create. Root is not limited.
func (s *Service) reserve(ctx context.Context, c Call, dm *nnf.DataMovement) (*reservation, error) {
	l, most := s.living, s.settings.Load().Limits
	uid, bytes := dm.Spec.UserID, datamovement.Size(dm)
	for again := true; ; again = false {
		l.mu.Lock()
		counted := l.counted
		setting, have := l.over(uid, bytes, most)
		if !counted.IsZero() && (setting == "" || c.UID == 0) {
			l.pending++
			r := &reservation{l, uid, strconv.Itoa(l.pending), bytes}
			l.put(uid, r.key, bytes, time.Now())
			l.mu.Unlock()
			return r, nil
		}
		l.mu.Unlock()
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
	l := s.living
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-l.turn }()
	begin := time.Now()
	l.mu.Lock()
	if !l.counted.Equal(known) {
		l.mu.Unlock()
		return nil
	}
	l.dropped = make(map[string]bool)
	l.mu.Unlock()
	var items []*nnf.DataMovement
	err := s.api.with(ctx, kindMovement, func(res kube.Resource) (err error) {
		items, err = s.api.Movements(ours(ctx), res, selectorOf(map[string]string{api.LabelInitiator: s.o.Node}))
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	dropped := l.dropped
	l.dropped = nil
	if err != nil {
		return err
	}
	before := l.users
	l.users, l.counted = make(map[int64]*holding), begin
	for _, dm := range items {
		if key := livingKey(dm.Namespace, dm.Name); !dropped[key] {
			l.put(dm.Spec.UserID, key, datamovement.Size(dm), begin)
		}
	}
	for uid, h := range before { // what the list may be too old for
		for key, item := range h.items {
			if !item.at.Before(begin) {
				l.put(uid, key, item.bytes, item.at)
			}
		}
	}
	return nil
}
