package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// refreshAfter is how old a cached list must be before a name that is not in it
// is looked up again. It bounds what wrong names cost the API server.
const refreshAfter = 2 * time.Second

// lookup finds what a request needs and the administrator has set up.
type lookup struct {
	api      *apiServer
	node     string
	fixed    string // the rabbit by configuration; empty: look it up
	config   string // name of the SystemConfiguration
	age      func() time.Duration
	system   *cached[*dws.SystemConfiguration]
	systems  *cached[[]lus.LustreFileSystem]
	profiles *cached[[]nnf.DataMovementProfile]
	last     atomic.Pointer[string] // the rabbit that was found last
}

func newLookup(a *apiServer, o *Options, age func() time.Duration) *lookup {
	l := &lookup{api: a, node: o.Node, fixed: o.Rabbit, config: o.SystemConfiguration, age: age}
	l.system = newCached(func(ctx context.Context) (*dws.SystemConfiguration, error) {
		sc := new(dws.SystemConfiguration)
		return sc, a.get(ctx, kindSystemConfig, dws.NamespaceSystemConfiguration, l.config, sc)
	})
	l.systems = newCached(func(ctx context.Context) ([]lus.LustreFileSystem, error) {
		return listOf[lus.LustreFileSystem](ctx, a, kindFileSystem, "")
	})
	l.profiles = newCached(func(ctx context.Context) ([]nnf.DataMovementProfile, error) {
		return listOf[nnf.DataMovementProfile](ctx, a, kindProfile, nnf.NamespaceProfiles)
	})
	return l
}

func listOf[T any](ctx context.Context, a *apiServer, k kind, ns string) ([]T, error) {
	var items []*T
	err := a.list(ctx, k, ns, nil, false, &items)
	out := make([]T, 0, len(items))
	for _, i := range items {
		out = append(out, *i)
	}
	return out, err
}

// cached keeps one answer of the API server for a while. Several callers at
// once make one request; each waits no longer than its own context.
type cached[T any] struct {
	fetch func(context.Context) (T, error)
	turn  chan struct{} // held while asking
	value T
	at    time.Time // zero: nothing is cached
}

func newCached[T any](fetch func(context.Context) (T, error)) *cached[T] {
	return &cached[T]{fetch: fetch, turn: make(chan struct{}, 1)}
}

// get returns the answer, not older than age. fresh tells that it was asked for
// just now. A failure is not cached.
func (c *cached[T]) get(ctx context.Context, age time.Duration) (value T, fresh bool, err error) {
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return value, false, ctx.Err()
	}
	defer func() { <-c.turn }()
	if !c.at.IsZero() && time.Since(c.at) < age {
		return c.value, false, nil
	}
	if value, err = c.fetch(shared(ctx)); err != nil {
		return value, false, err
	}
	c.value, c.at = value, time.Now()
	return value, true, nil
}

// find calls choose with the cached answer, and with a newer one if it chooses
// nothing and the answer is not fresh.
func find[T, R any](ctx context.Context, c *cached[T], age time.Duration, choose func(T) (R, error)) (out R, err error) {
	for _, age := range []time.Duration{age, refreshAfter} {
		value, fresh, err := c.get(ctx, age)
		if err != nil {
			return out, err
		}
		if out, err = choose(value); err == nil || fresh || age == refreshAfter {
			return out, err
		}
	}
	panic("not reached")
}

// rabbit returns the rabbit that serves this node, empty for an external
// compute. A node that the SystemConfiguration does not know may be one that is
// being added, so the error invites a retry.
func (l *lookup) rabbit(ctx context.Context) (string, error) {
	if l.fixed != "" {
		return l.fixed, nil
	}
	name, err := find(ctx, l.system, l.age(), func(sc *dws.SystemConfiguration) (string, error) {
		if name, ok := rabbitOf(sc, l.node); ok {
			return name, nil
		}
		return "", datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE,
			"storage node not found in system configuration: node '%s' is in none of its lists; try again, or tell the administrator", l.node)
	})
	if err != nil {
		return "", l.noConfiguration(err)
	}
	l.last.Store(&name)
	return name, nil
}

// known is rabbit without asking again, as long as one was found: a request that
// follows a movement must not depend on anything else.
func (l *lookup) known(ctx context.Context) (string, error) {
	if p := l.last.Load(); p != nil && l.fixed == "" {
		return *p, nil
	}
	return l.rabbit(ctx)
}

func (l *lookup) noConfiguration(err error) error {
	if kube.IsNotFound(err) {
		err = datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE,
			"the system configuration '%s' does not exist, so the rabbit of this node is not known: try again, or tell the administrator", l.config)
	}
	return err
}

// rabbitOf accepts the node's full name, then its short one.
func rabbitOf(sc *dws.SystemConfiguration, node string) (string, bool) {
	short, _, _ := strings.Cut(node, ".")
	for _, name := range []string{node, short} {
		for _, s := range sc.Spec.StorageNodes {
			if s.Type == dws.TypeRabbit && slices.ContainsFunc(s.ComputesAccess, func(c dws.ComputeAccess) bool { return c.Name == name }) {
				return s.Name, true
			}
		}
		if slices.ContainsFunc(sc.Spec.ExternalComputeNodes, func(e dws.ExternalNode) bool { return e.Name == name }) {
			return "", true
		}
	}
	return "", false
}

// workflow reads a workflow. The fault is the one of a missing workflow.
func (l *lookup) workflow(ctx context.Context, w datamovement.WorkflowRef) (*dws.Workflow, error) {
	wf := new(dws.Workflow)
	err := l.api.get(ctx, kindWorkflow, w.Namespace, w.Name, wf)
	if kube.IsNotFound(err) {
		return nil, datamovement.WorkflowNotFound(w)
	}
	return wf, err
}

// clientMounts lists a workflow's ClientMounts in a namespace, or in all of which
// keep is true.
func (l *lookup) clientMounts(ctx context.Context, wf *dws.Workflow, ns string, keep func(namespace string) bool, fromCache bool) (items []*dws.ClientMount, err error) {
	labels := map[string]string{api.LabelWorkflowName: wf.Name, api.LabelWorkflowNamespace: wf.Namespace}
	err = l.api.list(ctx, kindClientMount, ns, labels, fromCache, &items)
	if keep != nil {
		items = slices.DeleteFunc(items, func(cm *dws.ClientMount) bool { return !keep(cm.Namespace) })
	}
	return items, err
}

// source finds the path of the request's source on the rabbit. The servers of
// Lustre may be on other rabbits only, so those are searched when the own one has
// nothing.
func (l *lookup) source(ctx context.Context, r *datamovement.Request, m datamovement.Mount, j *job, rabbit string, since time.Time) (path string, err error) {
	lustre := m.Type == dws.TypeLustre
	if rabbit == "" && !lustre {
		return "", datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND,
			"no client mounts found: node '%s' has no rabbit, it can copy from lustre only", l.node)
	}
	own := datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found on any rabbit")
	none := false // there are no servers at all
	choose := func(servers []datamovement.Mount) (s datamovement.Mount, err error) {
		none = len(servers) == 0
		path, s, err = datamovement.OnRabbit(r, m, servers, l.node, rabbit)
		return s, err
	}
	if rabbit != "" {
		err := j.settle(ctx, l, rabbit, nil, since, choose)
		f := (*datamovement.Fault)(nil)
		if err == nil || !lustre || !errors.As(err, &f) {
			return path, err
		}
		own = f
	}
	sc, _, err := l.system.get(ctx, l.age())
	if err != nil {
		return "", own
	}
	err = j.settle(ctx, l, "", func(ns string) bool {
		return slices.ContainsFunc(sc.Spec.StorageNodes, func(s dws.StorageNode) bool { return s.Name == ns })
	}, since, choose)
	if f := (*datamovement.Fault)(nil); none && errors.As(err, &f) {
		return "", own
	}
	return path, err
}

// destination finds the global file system of the request's destination.
func (l *lookup) destination(ctx context.Context, r *datamovement.Request) (dws.ObjectReference, error) {
	return find(ctx, l.systems, l.age(), func(systems []lus.LustreFileSystem) (dws.ObjectReference, error) {
		return datamovement.MatchDestination(r, systems)
	})
}

// profile finds a profile, the default one for an empty name.
func (l *lookup) profile(ctx context.Context, name string) (*nnf.DataMovementProfile, error) {
	return find(ctx, l.profiles, l.age(), func(profiles []nnf.DataMovementProfile) (*nnf.DataMovementProfile, error) {
		return datamovement.ChooseProfile(profiles, name)
	})
}
