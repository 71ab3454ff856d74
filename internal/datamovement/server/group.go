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

// group is a set of the caller's movements that version 2 handles as one.
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
	shown snapshot // what follow has shown last
}

// perMember is what a member is taken to cost while it is followed.
const perMember = 192

// group finds the movements of uids and handles, and follows them until release.
// No uids mean all movements of the workflow that this node has made.
func (s *Service) group(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef, uids []string) (*group, error) {
	if err := w.Check(); err != nil {
		return nil, s.judged(c, "", err)
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
		// A handle that is named again costs another list.
		if done[uid] {
			continue
		}
		done[uid] = true
		if strings.HasPrefix(uid, datamovement.BatchPrefix) {
			if err := datamovement.CheckHandle(uid); err != nil {
				return g.s.judged(g.c, uid, err)
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

// listed adds those with the labels that are the caller's.
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

// notify is feed.notify for all members.
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

// follow calls show for each member whose state is new, then done, until all
// have ended, the caller or the daemon goes, or one of the two fails.
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
			// An end is an end. To look at what was deleted costs a request.
			was := m.shown.version != (revision{})
			if was && m.shown.ended() {
				continue
			}
			now, err := g.snapshot(ctx, *m, was)
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

// snapshot is a member's state at one time.
type snapshot struct {
	uid       string
	version   revision          // differs when something has changed
	dm        *nnf.DataMovement // nil: it is gone
	tombstone *tombstone        // it was cancelled before its start
}

// revision is the state of a member: that of an object, or one without an object.
type revision struct {
	uid   types.UID
	state string
}

func (n snapshot) ended() bool {
	return n.dm == nil || n.tombstone != nil || datamovement.Completed(n.dm)
}

// snapshot fails for a member that was never there; one that was and is not any
// more has been deleted.
func (g *group) snapshot(ctx context.Context, m member, was bool) (snapshot, error) {
	found, buried := g.s.tombstone(g.c, g.workflow, m.uid)
	var dm *nnf.DataMovement
	var err error
	if !buried {
		dm, err = g.s.current(ctx, g.c, g.workflow, m.feed, m.uid)
		found, buried = g.s.tombstoneSince(g.c, g.workflow, m.uid, err)
	}
	if buried {
		return snapshot{uid: m.uid, version: revision{state: "cancelled"}, dm: found.dm, tombstone: &found}, nil
	}
	if f := datamovement.Explain(err); was && f != nil && f.Kind == datamovement.ErrNotFound {
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
