package server

import (
	"container/list"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

const (
	// absentTime is how long a name that was not found stays so: clients that ask
	// for a wrong name ask again every second or faster.
	absentTime = 2 * time.Second
	// maxAbsent bounds the names of one user, and maxAbsentAll those of all.
	maxAbsent    = 256
	maxAbsentAll = 8192
)

// absent remembers for a short time which names of movements and batches a user
// was told not to exist. Names that are missing and names that are not the
// caller's are remembered alike, so that no caller can tell them apart. The zero
// value is ready.
type absent struct {
	mu    sync.Mutex
	names map[string]map[absentKey]*list.Element // by name, then by caller
	users map[uint32]int
	order list.List // of *absence, oldest first
}

// absentKey is who asked, and about which workflow.
type absentKey struct {
	uid      uint32
	workflow datamovement.WorkflowRef
}

// absentBatch is the name of a batch here. Its handle may also be asked for as if
// it were a movement's uid.
func absentBatch(handle string) string { return "batch " + handle }

type absence struct {
	name string
	key  absentKey
	at   time.Time
	// Of a refusal that is recorded each time; empty for what is missing.
	object, reason string
}

// find returns what is remembered; false when the API server must be asked.
func (a *absent) find(c Call, w datamovement.WorkflowRef, name string) (absence, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	e := a.names[name][absentKey{c.UID, w}]
	if e == nil {
		return absence{}, false
	}
	return *e.Value.(*absence), true
}

// add remembers a name; object and reason are those of a refusal, or empty.
func (a *absent) add(c Call, w datamovement.WorkflowRef, name, object, reason string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.expire()
	n := &absence{name: name, key: absentKey{c.UID, w}, at: time.Now(), object: object, reason: reason}
	if e := a.names[name][n.key]; e != nil {
		a.remove(e)
	}
	if a.users[c.UID] >= maxAbsent || a.order.Len() >= maxAbsentAll {
		return // a guess costs a request, as without this
	}
	if a.names == nil {
		a.names, a.users = make(map[string]map[absentKey]*list.Element), make(map[uint32]int)
	}
	if a.names[name] == nil {
		a.names[name] = make(map[absentKey]*list.Element)
	}
	a.names[name][n.key] = a.order.PushBack(n)
	a.users[c.UID]++
}

// forget makes a name unknown again, because something was made by it.
func (a *absent) forget(name string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, e := range a.names[name] {
		a.remove(e)
	}
}

// expire is called under mu.
func (a *absent) expire() {
	for e := a.order.Front(); e != nil && time.Since(e.Value.(*absence).at) >= absentTime; e = a.order.Front() {
		a.remove(e)
	}
}

// remove is called under mu.
func (a *absent) remove(e *list.Element) {
	n := a.order.Remove(e).(*absence)
	delete(a.names[n.name], n.key)
	if len(a.names[n.name]) == 0 {
		delete(a.names, n.name)
	}
	if a.users[n.key.uid]--; a.users[n.key.uid] == 0 {
		delete(a.users, n.key.uid)
	}
}
