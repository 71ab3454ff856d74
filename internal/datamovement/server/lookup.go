package server

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// refreshAfter is how old a remembered list must be before a name that is not in
// it is looked for anew. It bounds what wrong names cost the API server.
const refreshAfter = 2 * time.Second

// lookup finds what a request needs and the administrator has set up.
type lookup struct {
	api      *remote
	node     string
	fixed    string // the rabbit by configuration; empty: look it up
	config   string // name of the SystemConfiguration
	age      func() time.Duration
	system   *remembered[*dws.SystemConfiguration]
	systems  *remembered[[]lus.LustreFileSystem]
	profiles *remembered[[]nnf.DataMovementProfile]
	last     atomic.Pointer[string] // the rabbit that was found last
}

func newLookup(r *remote, o *Options, age func() time.Duration) *lookup {
	l := &lookup{api: r, node: o.Node, fixed: o.Rabbit, config: o.SystemConfiguration, age: age}
	l.system = remember(func(ctx context.Context) (*dws.SystemConfiguration, error) {
		sc := new(dws.SystemConfiguration)
		return sc, r.get(ctx, kindSystemConfig, dws.NamespaceSystemConfiguration, l.config, sc)
	})
	l.systems = remember(func(ctx context.Context) (out []lus.LustreFileSystem, err error) {
		err = r.with(ctx, kindFileSystem, func(res kube.Resource) error {
			items, err := r.FileSystems(ctx, res)
			out = values(items)
			return err
		})
		return out, err
	})
	l.profiles = remember(func(ctx context.Context) (out []nnf.DataMovementProfile, err error) {
		err = r.with(ctx, kindProfile, func(res kube.Resource) error {
			items, err := r.Profiles(ctx, res, nnf.NamespaceProfiles)
			out = values(items)
			return err
		})
		return out, err
	})
	return l
}

func values[T any](items []*T) []T {
	out := make([]T, 0, len(items))
	for _, i := range items {
		out = append(out, *i)
	}
	return out
}

// rabbit returns the rabbit that serves this node, empty for an external
// compute. A node that the SystemConfiguration does not know may be one that is
// being added: that is worth another try.
func (l *lookup) rabbit(ctx context.Context) (string, error) {
	if l.fixed != "" {
		return l.fixed, nil
	}
	for _, age := range []time.Duration{l.age(), refreshAfter} {
		sc, fresh, err := l.configuration(ctx, age)
		if err != nil {
			return "", err
		}
		if name, ok := rabbitOf(sc, l.node); ok {
			l.last.Store(&name)
			return name, nil
		}
		if fresh {
			break
		}
	}
	return "", datamovement.NewFault(datamovement.ErrUnavailable, datamovement.ReasonUnavailable,
		"storage node not found in system configuration: node '%s' is in none of its lists; try again, or tell the administrator", l.node)
}

// known is rabbit without asking again, as long as one was found: whoever follows
// a movement must not depend on anything else.
func (l *lookup) known(ctx context.Context) (string, error) {
	if p := l.last.Load(); p != nil && l.fixed == "" {
		return *p, nil
	}
	return l.rabbit(ctx)
}

func (l *lookup) configuration(ctx context.Context, age time.Duration) (*dws.SystemConfiguration, bool, error) {
	sc, fresh, err := l.system.get(ctx, age)
	if kube.IsNotFound(err) {
		err = datamovement.NewFault(datamovement.ErrUnavailable, datamovement.ReasonUnavailable,
			"the system configuration '%s' does not exist, so the rabbit of this node is not known: try again, or tell the administrator", l.config)
	}
	return sc, fresh, err
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
func (l *lookup) clientMounts(ctx context.Context, wf *dws.Workflow, ns string, keep func(namespace string) bool, atHand bool) (out []*dws.ClientMount, err error) {
	selector := selectorOf(map[string]string{api.LabelWorkflowName: wf.Name, api.LabelWorkflowNamespace: wf.Namespace})
	err = l.api.with(ctx, kindClientMount, func(res kube.Resource) error {
		items, err := l.api.ClientMounts(ctx, res, ns, selector, atHand)
		out = nil
		for _, cm := range items {
			if keep == nil || keep(cm.Namespace) {
				out = append(out, cm)
			}
		}
		return err
	})
	return out, err
}

// clientMount reads one.
func (l *lookup) clientMount(ctx context.Context, ns, name string) (*dws.ClientMount, error) {
	cm := new(dws.ClientMount)
	return cm, l.api.get(ctx, kindClientMount, ns, name, cm)
}

// ownedBy tells whether a ClientMount has the labels of a workflow, by which it
// was listed.
func ownedBy(cm *dws.ClientMount, wf *dws.Workflow) bool {
	return cm.Labels[api.LabelWorkflowName] == wf.Name && cm.Labels[api.LabelWorkflowNamespace] == wf.Namespace
}

// source finds where the rabbit sees the source. The servers of Lustre may be on
// other rabbits only ("Do better" 18), so those are looked at when the own one
// has nothing.
func (l *lookup) source(ctx context.Context, path string, m datamovement.Mount, j *job, rabbit string, since time.Time) (found string, err error) {
	lustre := m.Type == dws.TypeLustre
	if rabbit == "" && !lustre {
		return "", datamovement.NewFault(datamovement.ErrFailed, datamovement.ReasonMountNotFound,
			"no client mounts found: node '%s' has no rabbit, it can copy from lustre only", l.node)
	}
	own := datamovement.NewFault(datamovement.ErrFailed, datamovement.ReasonMountNotFound, "no client mounts found on any rabbit")
	none := false // there are no servers at all
	choose := func(servers []datamovement.Mount) (s datamovement.Mount, err error) {
		none = len(servers) == 0
		found, s, err = datamovement.FindServer(path, m, servers, l.node, rabbit)
		return s, err
	}
	if rabbit != "" {
		err := j.settle(ctx, l, rabbit, nil, since, choose)
		f := (*datamovement.Fault)(nil)
		if err == nil || !lustre || !errors.As(err, &f) {
			return found, err
		}
		own = f
	}
	sc, _, err := l.configuration(ctx, l.age())
	if err != nil {
		return "", own
	}
	err = j.settle(ctx, l, "", func(ns string) bool {
		return slices.ContainsFunc(sc.Spec.StorageNodes, func(s dws.StorageNode) bool { return s.Name == ns })
	}, since, choose)
	if f := (*datamovement.Fault)(nil); none && errors.As(err, &f) {
		return "", own
	}
	return found, err
}

// destination finds the global file system.
func (l *lookup) destination(ctx context.Context, path string) (dws.ObjectReference, error) {
	for _, age := range []time.Duration{l.age(), refreshAfter} {
		systems, fresh, err := l.systems.get(ctx, age)
		if err != nil {
			return dws.ObjectReference{}, err
		}
		ref, err := datamovement.MatchDestination(path, systems)
		if err == nil || fresh || age == refreshAfter {
			return ref, err
		}
	}
	panic("not reached")
}

// profile finds a profile, the default one for an empty name.
func (l *lookup) profile(ctx context.Context, name string) (*nnf.DataMovementProfile, error) {
	for _, age := range []time.Duration{l.age(), refreshAfter} {
		profiles, fresh, err := l.profiles.get(ctx, age)
		if err != nil {
			return nil, err
		}
		p, err := chosen(profiles, name)
		if err == nil || fresh || age == refreshAfter {
			return p, err
		}
	}
	panic("not reached")
}

func chosen(profiles []nnf.DataMovementProfile, name string) (*nnf.DataMovementProfile, error) {
	if name == "" {
		return datamovement.DefaultProfile(profiles)
	}
	for i := range profiles {
		if profiles[i].Name == name {
			return &profiles[i], nil
		}
	}
	return nil, datamovement.ProfileNotFound(name)
}
