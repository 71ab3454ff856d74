package clientmount

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// registry records which ClientMount uses which volume at which path of this node. It is
// filled from the records at start and updated with every change of a record. It answers
// three questions:
//
//   - May an object use a path? Only if no other object uses that path with another
//     volume, or a path above or below it, because one mount would hide the other.
//   - Is a mount shared? Persistent storage with a fixed mount path is used by
//     several workflows of a node at the same time. The last one unmounts.
//   - Is a volume shared? The same storage may be mounted at several paths. The
//     last one deactivates.
//
// It is safe for concurrent use.
type registry struct {
	// alive reports whether the object with this uid exists or an attempt for it is
	// running. Mounts of other objects are leftovers, which block no object.
	alive func(uid, name string) bool
	// freed is called after a path has become free; it must not block. May be nil.
	freed func()

	sequences node.Locks // by volume: one mount or unmount sequence at a time

	mu    sync.Mutex
	users map[string]*user // by uid
}

// user is one ClientMount and what it uses.
type user struct {
	uid, name string
	claims    []claim
	handed    []claim // from sharers that have unmounted, see handOver
}

// claim is the use of one volume at one path.
type claim struct {
	path, typ, volume string
	created           []string  // made for the target
	mounted           *Identity // nil before the mount
	mounting          bool      // the mount command was about to run
	reserved          bool      // not recorded yet
}

func claimOf(p *plan.Plan) claim { return claim{path: p.Path, typ: p.Type, volume: p.Volume()} }

// claim returns the claim of a recorded mount.
func (m *MountRecord) claim() claim {
	c := claimOf(&m.Plan)
	c.created, c.mounted, c.mounting = slices.Clone(m.Created), m.Mounted, m.Mounting
	return c
}

// samePlace reports whether two claims are for the same mount.
func (c *claim) samePlace(o *claim) bool {
	return c.path == o.path && c.typ == o.typ && c.volume == o.volume
}

// hides reports whether one of two mounts at these paths would hide the other, or
// whether the paths are equal.
func (c *claim) hides(o *claim) bool {
	return safepath.Within(c.path, o.path) || safepath.Below(o.path, c.path)
}

// conflictError reports that another ClientMount uses the path of a mount, or a path
// above or below it.
type conflictError struct {
	path        string
	other, uid  string // the other ClientMount
	otherPath   string
	otherVolume string
	gone        bool // the other ClientMount no longer exists
}

func (e *conflictError) Error() string {
	other := "ClientMount " + e.other
	if e.gone {
		other = "the deleted ClientMount " + e.other
	}
	switch {
	case e.path == e.otherPath:
		return fmt.Sprintf("mount path %s is in use by %s with another volume (%s)", e.path, other, e.otherVolume)
	case safepath.Below(e.path, e.otherPath):
		return fmt.Sprintf("mount path %s is below %s, where %s has mounted %s", e.path, e.otherPath, other, e.otherVolume)
	}
	return fmt.Sprintf("mount path %s would hide %s, where %s has mounted %s", e.path, e.otherPath, other, e.otherVolume)
}

// reserve claims the paths and volumes of plans for an object, either all of them or
// none. It does not check claims again that the object already has. The error is a
// *conflictError.
func (r *registry) reserve(uid, name string, plans []*plan.Plan) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[uid]
	var fresh []claim
	for _, p := range plans {
		if p == nil {
			continue
		}
		c := claimOf(p)
		if u != nil && slices.ContainsFunc(u.claims, func(have claim) bool { return have.samePlace(&c) }) {
			continue
		}
		if err := r.conflict(uid, &c); err != nil {
			return err
		}
		c.reserved = true
		fresh = append(fresh, c)
	}
	if len(fresh) == 0 {
		return nil
	}
	if u == nil {
		u = &user{uid: uid, name: name}
		r.users[uid] = u
	}
	u.claims = append(u.claims, fresh...)
	return nil
}

// conflict returns a *conflictError if the claim of another object prevents the mount of
// c. The caller holds mu.
func (r *registry) conflict(uid string, c *claim) error {
	for _, other := range r.users {
		if other.uid == uid {
			continue
		}
		for i := range other.claims {
			if o := &other.claims[i]; o.hides(c) && !o.samePlace(c) {
				return &conflictError{path: c.path, other: other.name, uid: other.uid, otherPath: o.path, otherVolume: o.volume}
			}
		}
	}
	return nil
}

// covered reports whether a path is below a path of another object.
func (r *registry) covered(uid, path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.users {
		if u.uid != uid && slices.ContainsFunc(u.claims, func(c claim) bool { return safepath.Below(path, c.path) }) {
			return true
		}
	}
	return false
}

// taken reports whether other objects use the plan's path, with the same volume or
// another one.
func (r *registry) taken(uid string, p *plan.Plan) bool {
	c := claimOf(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.conflict(uid, &c) != nil {
		return true
	}
	for _, u := range r.users {
		if u.uid != uid && slices.ContainsFunc(u.claims, func(o claim) bool { return o.samePlace(&c) }) {
			return true
		}
	}
	return false
}

// keep replaces the claims of an object with those of its record: all mounts that are
// not unmounted yet. With a nil record it drops all claims.
func (r *registry) keep(uid string, rec *Record) {
	r.mu.Lock()
	had := 0
	u := &user{uid: uid}
	if old := r.users[uid]; old != nil {
		had, u.handed = len(old.claims), old.handed
	}
	if rec != nil {
		u.name = rec.Name
		for i := range rec.Mounts {
			if m := &rec.Mounts[i]; !m.Unmounted {
				u.claims = append(u.claims, m.claim())
			}
		}
	}
	if len(u.claims) == 0 { // it can no longer take over a claim
		delete(r.users, uid)
	} else {
		r.users[uid] = u
	}
	r.mu.Unlock()
	if len(u.claims) < had && r.freed != nil {
		r.freed()
	}
}

// forget drops the claim of an object at a path.
func (r *registry) forget(uid, path string) {
	r.mu.Lock()
	u := r.users[uid]
	if u == nil {
		r.mu.Unlock()
		return
	}
	had := len(u.claims)
	u.claims = slices.DeleteFunc(u.claims, func(c claim) bool { return c.path == path })
	freed := len(u.claims) < had
	if len(u.claims) == 0 {
		delete(r.users, uid)
	}
	r.mu.Unlock()
	if freed && r.freed != nil {
		r.freed()
	}
}

// holds reports whether an object has a claim at a path.
func (r *registry) holds(uid, path string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	u := r.users[uid]
	return u != nil && slices.ContainsFunc(u.claims, func(c claim) bool { return c.path == path })
}

// sharer is another ClientMount that uses the same volume.
type sharer struct {
	uid, name string
	alive     bool
}

// sharers returns the other users of the plan's volume: here, other objects at the plan's
// path; elsewhere, users at other paths, including the object itself. It ignores claims
// that are only reserved: their objects may never mount, and if they do, they activate
// the volume again.
func (r *registry) sharers(uid string, p *plan.Plan) (here, elsewhere []sharer) {
	mine := claimOf(p)
	r.mu.Lock()
	for _, u := range r.users {
		for _, c := range u.claims {
			if c.volume != mine.volume || c.reserved || u.uid == uid && c.path == mine.path {
				continue
			}
			s := sharer{uid: u.uid, name: u.name}
			if c.samePlace(&mine) {
				here = append(here, s)
			} else {
				elsewhere = append(elsewhere, s)
			}
		}
	}
	r.mu.Unlock()
	for _, list := range [][]sharer{here, elsewhere} {
		for i := range list { // alive calls the controller's loop, so not while holding mu
			list[i].alive = list[i].uid == uid || r.alive(list[i].uid, list[i].name)
		}
		slices.SortFunc(list, func(a, b sharer) int { return strings.Compare(a.name, b.name) })
	}
	return here, elsewhere
}

// firstAlive returns the first sharer whose object exists, or nil.
func firstAlive(list []sharer) *sharer {
	for i := range list {
		if list[i].alive {
			return &list[i]
		}
	}
	return nil
}

// handOver passes the recorded state of a mount to the remaining users of that mount,
// because the last one to unmount must know what to remove.
func (r *registry) handOver(uid string, m *MountRecord) {
	c := m.claim()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.users {
		if u.uid != uid && slices.ContainsFunc(u.claims, func(o claim) bool { return o.samePlace(&c) }) {
			note := c
			for _, before := range u.handed {
				if before.samePlace(&c) {
					note.created = union(before.created, note.created)
				}
			}
			u.handed = append(slices.DeleteFunc(u.handed, func(o claim) bool { return o.samePlace(&c) }), note)
		}
	}
}

// inherit adds to the record of a mount what other users of the same mount have recorded,
// and reports whether the record changed. The caller holds the lock of the volume.
func (r *registry) inherit(uid string, m *MountRecord) (changed bool) {
	mine := claimOf(&m.Plan)
	take := func(c *claim) {
		if !c.samePlace(&mine) {
			return
		}
		if m.Mounted == nil && c.mounted != nil {
			id := *c.mounted
			m.Mounted, changed = &id, true
		}
		if m.Mounted == nil && c.mounting && !m.Mounting {
			m.Mounting, changed = true, true
		}
		if all := union(m.Created, c.created); len(all) > len(m.Created) {
			m.Created, changed = all, true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.users {
		if u.uid == uid {
			for i := range u.handed {
				take(&u.handed[i])
			}
			u.handed = slices.DeleteFunc(u.handed, func(c claim) bool { return c.samePlace(&mine) })
			continue
		}
		for i := range u.claims {
			take(&u.claims[i])
		}
	}
	return changed
}

// sequence locks the plan's volume; done unlocks it. The error is the cause of the end of
// ctx.
func (r *registry) sequence(ctx context.Context, p *plan.Plan) (done func(), err error) {
	return r.sequences.Lock(ctx, p.Volume())
}
