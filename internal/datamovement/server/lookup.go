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

// refreshAfter is the minimum age of a cached list before a missing name causes another
// read. It limits the requests that wrong names cause.
const refreshAfter = 2 * time.Second

// lookup reads the objects that a request needs: the workflow and its mounts, and the
// objects that administrators maintain. It reads the SystemConfiguration, which is large and
// rarely changes, from the server's cache.
type lookup struct {
	api      *apiServer
	node     string
	fixed    string // the rabbit in the configuration; empty: look it up
	config   string // name of the SystemConfiguration
	age      func() time.Duration
	system   *cached[site]
	systems  *cached[[]lus.LustreFileSystem]
	profiles *cached[[]nnf.DataMovementProfile]
	last     atomic.Pointer[string] // the rabbit that was last found
}

func newLookup(a *apiServer, o *Options, age func() time.Duration) *lookup {
	l := &lookup{api: a, node: o.Node, fixed: o.Rabbit, config: o.SystemConfiguration, age: age}
	l.system = newCached(func(ctx context.Context) (site, error) {
		sc := new(dws.SystemConfiguration)
		err := a.getCached(ctx, kindSystemConfig, dws.NamespaceSystemConfiguration, l.config, sc)
		return siteOf(sc, l.node), err
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

// cached caches one response of the API server. Concurrent callers share one request;
// each of them stops waiting when its own context ends.
type cached[T any] struct {
	fetch func(context.Context) (T, error)
	turn  chan struct{} // held during a request
	value T
	at    time.Time // zero: nothing is cached
}

func newCached[T any](fetch func(context.Context) (T, error)) *cached[T] {
	return &cached[T]{fetch: fetch, turn: make(chan struct{}, 1)}
}

// get returns the response, not older than age. fresh reports whether this call has
// read it. Errors are not cached.
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

// find calls choose with the cached response, and again with a newer one if choose fails
// and the response is not fresh.
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

// rabbit returns the rabbit that serves this node, empty for an external compute. If
// the SystemConfiguration does not list the node, the administrator may be about to
// add it, so the error allows a retry.
func (l *lookup) rabbit(ctx context.Context) (string, error) {
	if l.fixed != "" {
		return l.fixed, nil
	}
	name, err := find(ctx, l.system, l.age(), func(s site) (string, error) {
		if s.listed {
			return s.rabbit, nil
		}
		return "", datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE,
			"storage node not found in system configuration: node '%s' is not listed; try again, or ask the administrator to add the node", l.node)
	})
	if err != nil {
		return "", l.noConfiguration(err)
	}
	l.last.Store(&name)
	return name, nil
}

// known returns the rabbit that was last found, or looks it up: a request that follows
// a movement must not depend on other objects.
func (l *lookup) known(ctx context.Context) (string, error) {
	if p := l.last.Load(); p != nil && l.fixed == "" {
		return *p, nil
	}
	return l.rabbit(ctx)
}

func (l *lookup) noConfiguration(err error) error {
	if kube.IsNotFound(err) {
		err = datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_UNAVAILABLE,
			"the system configuration '%s' does not exist, so the rabbit of this node is not known: try again, or ask the administrator to create it", l.config)
	}
	return err
}

// site is what a node needs of the SystemConfiguration, which lists all nodes of the system.
type site struct {
	listed  bool     // the node is in it
	rabbit  string   // that serves this node; empty for an external compute
	storage []string // names of all storage nodes
}

func siteOf(sc *dws.SystemConfiguration, node string) (s site) {
	s.rabbit, s.listed = rabbitOf(sc, node)
	for _, n := range sc.Spec.StorageNodes {
		s.storage = append(s.storage, n.Name)
	}
	return s
}

// rabbitOf looks up the node's full name, then its short name.
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

// workflow reads a workflow. If it does not exist, the error is WorkflowNotFound.
func (l *lookup) workflow(ctx context.Context, w datamovement.WorkflowRef) (*dws.Workflow, error) {
	wf := new(dws.Workflow)
	err := l.api.get(ctx, kindWorkflow, w.Namespace, w.Name, wf)
	if kube.IsNotFound(err) {
		return nil, datamovement.WorkflowNotFound(w)
	}
	return wf, err
}

// clientMounts lists a workflow's ClientMounts in a namespace, or in all namespaces for
// which keep returns true.
func (l *lookup) clientMounts(ctx context.Context, wf *dws.Workflow, ns string, keep func(namespace string) bool, fromCache bool) (items []*dws.ClientMount, err error) {
	labels := map[string]string{api.LabelWorkflowName: wf.Name, api.LabelWorkflowNamespace: wf.Namespace}
	err = l.api.list(ctx, kindClientMount, ns, labels, fromCache, &items)
	if keep != nil {
		items = slices.DeleteFunc(items, func(cm *dws.ClientMount) bool { return !keep(cm.Namespace) })
	}
	return items, err
}

// source returns the path of the request's source on the rabbit. The servers of Lustre
// can be on other rabbits only, so for Lustre those are searched if the node's own
// rabbit has no such mount.
func (l *lookup) source(ctx context.Context, r *datamovement.Request, m datamovement.Mount, j *job, rabbit string, since time.Time) (path string, err error) {
	lustre := m.Type == dws.TypeLustre
	if rabbit == "" && !lustre {
		return "", datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND,
			"no client mounts found: node '%s' has no rabbit and can copy from lustre only", l.node)
	}
	own := datamovement.NewFault(datamovement.ErrFailed, v2.ErrorReason_MOUNT_NOT_FOUND, "no client mounts found on any rabbit")
	none := false // no servers found
	choose := func(servers []datamovement.Mount) (s datamovement.Mount, err error) {
		none = len(servers) == 0
		path, s, err = datamovement.OnRabbit(r, m, servers, l.node, rabbit)
		return s, err
	}
	if rabbit != "" {
		err := j.chooseMount(ctx, l, rabbit, nil, since, choose)
		f := (*datamovement.Fault)(nil)
		if err == nil || !lustre || !errors.As(err, &f) {
			return path, err
		}
		own = f
	}
	known, _, err := l.system.get(ctx, l.age())
	if err != nil {
		return "", own
	}
	err = j.chooseMount(ctx, l, "", func(ns string) bool {
		return slices.Contains(known.storage, ns)
	}, since, choose)
	if f := (*datamovement.Fault)(nil); none && errors.As(err, &f) {
		return "", own
	}
	return path, err
}

// destination returns the global file system of the request's destination.
func (l *lookup) destination(ctx context.Context, r *datamovement.Request) (dws.ObjectReference, error) {
	return find(ctx, l.systems, l.age(), func(systems []lus.LustreFileSystem) (dws.ObjectReference, error) {
		return datamovement.MatchDestination(r, systems)
	})
}

// profile returns a profile, the default one for an empty name.
func (l *lookup) profile(ctx context.Context, name string) (*nnf.DataMovementProfile, error) {
	return find(ctx, l.profiles, l.age(), func(profiles []nnf.DataMovementProfile) (*nnf.DataMovementProfile, error) {
		return datamovement.ChooseProfile(profiles, name)
	})
}
