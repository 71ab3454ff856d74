package server

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// group is a set of the caller's movements that one call of version 2 handles.
type group struct {
	s        *Service
	c        datamovement.Caller
	workflow datamovement.WorkflowRef
	members  []member // sorted by uid
	release  func()
}

type member struct {
	uid   string
	feed  *feed
	shown snapshot // the last one that follow has shown
}

// perMember is the memory that is charged for a followed member, in bytes.
const perMember = 192

// group finds the movements of uids and handles, and follows them until release is
// called. Without uids, it finds all movements of the workflow from this node.
func (s *Service) group(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uids []string) (*group, error) {
	if err := w.Check(); err != nil {
		return nil, s.fault(c, "", err)
	}
	if len(uids) > s.settings.Load().Limits.BatchSize {
		s.record(c, w.Namespace+"/"+w.Name, "too many uids in one request")
		return nil, datamovement.LimitExceeded("limits.batch_size")
	}
	g := &group{s: s, c: c, workflow: w}
	found, follows := make(map[string]*feed), make(map[*feed]func())
	g.release = sync.OnceFunc(func() {
		for _, release := range follows {
			release()
		}
	})
	add := func(uid string, f *feed) {
		found[uid] = f
		if follows[f] == nil {
			follows[f] = f.follow()
		}
	}
	err := g.resolve(ctx, uids, add)
	if err != nil {
		g.release()
		return nil, err
	}
	cost := int64(perMember * len(found))
	if err := chargeOf(ctx).take(ctx, cost); err != nil {
		g.release()
		s.recordNoMemory(c, w.Namespace+"/"+w.Name, err)
		return nil, err
	}
	release := g.release
	g.release = sync.OnceFunc(func() { release(); chargeOf(ctx).give(cost) })
	g.members = make([]member, 0, len(found))
	for uid, f := range maps.All(found) {
		g.members = append(g.members, member{uid: uid, feed: f})
	}
	slices.SortFunc(g.members, func(a, b member) int { return cmp.Compare(a.uid, b.uid) })
	return g, nil
}

func (g *group) resolve(ctx context.Context, uids []string, add func(string, *feed)) error {
	if len(uids) == 0 {
		_, err := g.listed(ctx, map[string]string{}, add)
		return err
	}
	done := make(map[string]bool, len(uids))
	for _, uid := range uids {
		// A repeated handle would cost another list.
		if done[uid] {
			continue
		}
		done[uid] = true
		if strings.HasPrefix(uid, datamovement.BatchPrefix) {
			if err := datamovement.CheckHandle(uid); err != nil {
				return g.s.fault(g.c, uid, err)
			}
			if g.s.isAbsent(g.c, g.workflow, absentBatch(uid)) {
				return datamovement.MovementNotFound(uid)
			}
			switch n, err := g.listed(ctx, map[string]string{api.LabelBatch: uid}, add); {
			case err != nil:
				return err
			case n == 0:
				return datamovement.MovementNotFound(uid)
			}
			continue
		}
		if err := g.s.checkNames(g.c, g.workflow, uid); err != nil {
			return err
		}
		f, err := g.s.place(ctx, g.c, uid)
		if err != nil {
			return err
		}
		add(uid, f)
	}
	return nil
}

// listed adds the caller's movements with these labels, and returns their number.
func (g *group) listed(ctx context.Context, labels map[string]string, add func(string, *feed)) (n int, err error) {
	items, err := g.s.listed(ctx, g.c, g.workflow, labels)
	if err != nil {
		return 0, err
	}
	policy := g.s.policy()
	for _, dm := range items {
		if policy.Movement(g.c, dm, g.workflow).Allowed() {
			f := g.s.feed(dm.Namespace)
			add(dm.Name, f)
			f.learn(dm)
			n++
		}
	}
	object, reason := "", ""
	if n == 0 {
		object, reason = g.s.recordHidden(g.c, g.workflow, items)
	}
	want := datamovement.Selector(g.workflow, g.s.o.Node)
	maps.Copy(want, labels)
	for _, dm := range g.s.tombstones.matching(want) {
		if policy.Movement(g.c, dm, g.workflow).Allowed() {
			add(dm.Name, g.s.feed(dm.Namespace))
			n++
		}
	}
	if batch := labels[api.LabelBatch]; n == 0 && batch != "" {
		g.s.absent.add(g.c, g.workflow, absentBatch(batch), object, reason)
	}
	return n, nil
}

// notify calls feed.notify for all members.
func (g *group) notify(ch chan<- struct{}) (stop func()) {
	byFeed := make(map[*feed][]string)
	for _, m := range g.members {
		byFeed[m.feed] = append(byFeed[m.feed], m.uid)
	}
	var stops []func()
	for f, uids := range byFeed {
		stops = append(stops, f.notify(ch, g.c.UID, uids...))
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

// follow calls show for each member with a new state, then done, until all members have
// ended, the call is cancelled, the daemon stops, or show or done fails.
func (g *group) follow(ctx context.Context, show func(snapshot) error, done func() error) error {
	release, err := g.s.waiter(g.c, g.workflow.Namespace+"/"+g.workflow.Name)
	if err != nil {
		return err
	}
	defer release()
	changed := make(chan struct{}, 1)
	defer g.notify(changed)()
	for {
		active := 0
		for i := range g.members {
			m := &g.members[i]
			// The state of an ended member is final. Reading a deleted one costs a request.
			seen := m.shown.version != (revision{})
			if seen && m.shown.ended() {
				continue
			}
			now, err := g.snapshot(ctx, *m, seen)
			if err != nil {
				return err
			}
			if now.version != m.shown.version {
				m.shown = now
				if err := show(now); err != nil {
					return err
				}
			}
			if !now.ended() {
				active++
			}
		}
		if err := done(); err != nil || active == 0 {
			return err
		}
		select {
		case <-changed:
		case <-g.s.stopping:
			return datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE, "the daemon is stopping: try again")
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// snapshot is the state of a member at one time.
type snapshot struct {
	uid       string
	version   revision          // changes with every change of the member
	dm        *nnf.DataMovement // nil: deleted
	tombstone *tombstone        // not nil: cancelled before its start
}

// revision identifies the state of a member: the version of its object, or a word if
// there is no object.
type revision struct {
	uid   types.UID
	state string
}

func (n snapshot) ended() bool {
	return n.dm == nil || n.tombstone != nil || datamovement.Completed(n.dm)
}

// snapshot returns the current state of a member. A member that does not exist is an
// error, unless it was seen before: then it has been deleted.
func (g *group) snapshot(ctx context.Context, m member, seen bool) (snapshot, error) {
	found, cancelled := g.s.tombstone(g.c, g.workflow, m.uid)
	var dm *nnf.DataMovement
	var err error
	if !cancelled {
		dm, err = g.s.current(ctx, g.c, g.workflow, m.feed, m.uid)
		found, cancelled = g.s.tombstoneSince(g.c, g.workflow, m.uid, err)
	}
	if !cancelled && err == nil {
		g.s.endCancel(ctx, g.c, m.feed, dm)
		if t, ok := g.s.tombstones.find(m.uid); ok && g.s.policy().Movement(g.c, t.dm, g.workflow).Allowed() {
			found, cancelled = t, true
		}
	}
	if cancelled {
		return snapshot{uid: m.uid, version: revision{state: "cancelled"}, dm: found.dm, tombstone: &found}, nil
	}
	if f := datamovement.Explain(err); seen && f != nil && f.Kind == datamovement.ErrNotFound {
		return snapshot{uid: m.uid, version: revision{state: "deleted"}}, nil
	}
	if err != nil {
		return snapshot{}, err
	}
	if err := g.s.allowed(g.c, dm, g.workflow); err != nil {
		return snapshot{}, err
	}
	return snapshot{uid: m.uid, version: revision{dm.UID, dm.ResourceVersion}, dm: dm}, nil
}
