package server

import (
	"errors"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

const (
	// tombstonesPerUser is more than a batch has, so that a whole one can be
	// cancelled and then asked for.
	tombstonesPerUser = 1024
	tombstoneTime     = time.Hour
)

// tombstones remember data movements that were cancelled before their start. The
// rabbit never ends those, so they are deleted at once, and a caller who asks for
// one learns that it was cancelled.
//
// Each is for one object, by its UID. A name may be given to another object
// later, when a request is repeated with its key: creating that one drops the
// tombstone. Each user has a table of their own, so that no user can push out
// what another one will ask for.
//
// They are in memory only, and harmless to lose: nothing was copied and nothing
// waits for them. A caller who asks after a restart learns that there is no such
// movement, which is an end as well.
type tombstones struct {
	mu    sync.Mutex
	users map[int64]map[types.UID]tombstone // by spec.userId
	names map[string]*nnf.DataMovement      // the last one of each name
	swept time.Time                         // when all were looked at
}

type tombstone struct {
	dm *nnf.DataMovement
	at time.Time
}

// add remembers that dm was cancelled. It keeps what an answer needs.
func (g *tombstones) add(dm *nnf.DataMovement) {
	kept := &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: dm.Name, Namespace: dm.Namespace, UID: dm.UID, Labels: dm.Labels}}
	kept.Spec.UserID = dm.Spec.UserID
	kept.Spec.Source.Path, kept.Spec.Destination.Path = dm.Spec.Source.Path, dm.Spec.Destination.Path
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == nil {
		g.users, g.names = make(map[int64]map[types.UID]tombstone), make(map[string]*nnf.DataMovement)
	}
	now := time.Now()
	if last := g.names[dm.Name]; last != nil {
		g.forget(last)
	}
	g.expire(now)
	if own := g.users[dm.Spec.UserID]; len(own) >= tombstonesPerUser {
		var oldest *tombstone
		for _, old := range own {
			if oldest == nil || old.at.Before(oldest.at) {
				oldest = &old
			}
		}
		g.forget(oldest.dm)
	}
	if g.users[dm.Spec.UserID] == nil {
		g.users[dm.Spec.UserID] = make(map[types.UID]tombstone)
	}
	g.users[dm.Spec.UserID][dm.UID] = tombstone{kept, now}
	g.names[dm.Name] = kept
}

// expire forgets what is out of date, of all users. It is called under mu.
func (g *tombstones) expire(now time.Time) {
	if now.Sub(g.swept) < tombstoneTime/4 {
		return
	}
	g.swept = now
	for _, own := range g.users {
		for _, old := range own {
			if now.Sub(old.at) > tombstoneTime {
				g.forget(old.dm)
			}
		}
	}
}

// forget is called under mu.
func (g *tombstones) forget(dm *nnf.DataMovement) {
	own := g.users[dm.Spec.UserID]
	if delete(own, dm.UID); len(own) == 0 {
		delete(g.users, dm.Spec.UserID)
	}
	if last := g.names[dm.Name]; last != nil && last.UID == dm.UID {
		delete(g.names, dm.Name)
	}
}

// find returns the tombstone of the last object of that name.
func (g *tombstones) find(name string) (tombstone, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	dm := g.names[name]
	if dm == nil {
		return tombstone{}, false
	}
	found := g.users[dm.Spec.UserID][dm.UID]
	if time.Since(found.at) > tombstoneTime {
		g.forget(dm)
		return tombstone{}, false
	}
	return found, true
}

// findMeanwhile is find for an error that says that the movement is missing: it
// may have been cancelled since the caller looked here.
func (g *tombstones) findMeanwhile(name string, err error) (tombstone, bool) {
	if !errors.Is(err, datamovement.ErrNotFound) {
		return tombstone{}, false
	}
	return g.find(name)
}

// drop forgets whatever had that name.
func (g *tombstones) drop(name string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if dm := g.names[name]; dm != nil {
		g.forget(dm)
	}
}

// dropObject forgets dm, and no other object of its name.
func (g *tombstones) dropObject(dm *nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.users[dm.Spec.UserID][dm.UID]; ok {
		g.forget(dm)
	}
}

// matching returns those that have all the labels.
func (g *tombstones) matching(labels map[string]string) (out []*nnf.DataMovement) {
	g.mu.Lock()
	defer g.mu.Unlock()
next:
	for _, dm := range g.names {
		for k, v := range labels {
			if dm.Labels[k] != v {
				continue next
			}
		}
		if time.Since(g.users[dm.Spec.UserID][dm.UID].at) <= tombstoneTime {
			out = append(out, dm)
		}
	}
	return out
}
