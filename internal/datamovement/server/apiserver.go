package server

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Client is the API server; Cluster is the real one.
type Client interface {
	Served(ctx context.Context, group string, known []string) (string, error)
	Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	// List reads the objects of a namespace, "" for all, into a pointer to a slice
	// of pointers to objects. A list from the server's cache may be out of date.
	List(ctx context.Context, r kube.Resource, namespace, selector string, fromCache bool, into any) error
	Create(ctx context.Context, r kube.Resource, namespace string, obj, into any) error
	Patch(ctx context.Context, r kube.Resource, namespace, name, subresource string, pt types.PatchType, body []byte, into any) error
	// Delete deletes one object if it is still the one with that UID.
	Delete(ctx context.Context, r kube.Resource, namespace, name string, uid types.UID) error
	Watch(ctx context.Context, r kube.Resource, namespace string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error
}

// Cluster is a Client of an API server.
type Cluster struct{ *kube.Client }

// Delete implements Client.
func (c Cluster) Delete(ctx context.Context, r kube.Resource, ns, name string, uid types.UID) error {
	return c.DeleteObject(ctx, r, ns, name, uid)
}

// List implements Client.
func (c Cluster) List(ctx context.Context, r kube.Resource, ns, selector string, fromCache bool, into any) error {
	switch out := into.(type) {
	case *[]*dws.ClientMount:
		return listInto(ctx, c, r, ns, selector, fromCache, out)
	case *[]*lus.LustreFileSystem:
		return listInto(ctx, c, r, ns, selector, fromCache, out)
	case *[]*nnf.DataMovementProfile:
		return listInto(ctx, c, r, ns, selector, fromCache, out)
	case *[]*nnf.DataMovement:
		return listInto(ctx, c, r, ns, selector, fromCache, out)
	}
	return fmt.Errorf("lists of %s cannot be read into a %T", r.Kind, into)
}

func listInto[T any, P kube.Object[T]](ctx context.Context, c Cluster, r kube.Resource, ns, selector string, fromCache bool, into *[]*T) (err error) {
	if fromCache {
		*into, err = kube.ListCached[T, P](ctx, c.Client, r, ns, selector)
	} else {
		*into, err = kube.List[T, P](ctx, c.Client, r, ns, selector)
	}
	return err
}

// Watch watches the data movements of a namespace.
func (c Cluster) Watch(ctx context.Context, r kube.Resource, ns string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error {
	return kube.Watch(ctx, c.Client, r, ns, o, h)
}

// kind is a resource whose version is not known yet.
type kind struct{ group, plural, kind string }

var (
	kindWorkflow     = kind{api.GroupDWS, "workflows", dws.KindWorkflow}
	kindClientMount  = kind{api.GroupDWS, "clientmounts", "ClientMount"}
	kindSystemConfig = kind{api.GroupDWS, "systemconfigurations", "SystemConfiguration"}
	kindMovement     = kind{api.GroupNNF, "nnfdatamovements", nnf.KindDataMovement}
	kindProfile      = kind{api.GroupNNF, "nnfdatamovementprofiles", nnf.KindDataMovementProfile}
	kindFileSystem   = kind{api.GroupLUS, "lustrefilesystems", lus.KindLustreFileSystem}
)

var knownVersions = map[string][]string{
	api.GroupDWS: api.VersionsDWS, api.GroupNNF: api.VersionsNNF, api.GroupLUS: api.VersionsLUS,
}

// apiServer sends requests in the versions that the API server serves, those on
// behalf of a user when it is that user's turn. It asks for the versions when it
// first needs them, and again when one is not served any more.
type apiServer struct {
	client   Client
	queue    fairQueue
	versions kube.Versions
}

func newAPIServer(c Client) *apiServer { return &apiServer{client: c} }

// with calls f with the resource, and a second time if its version is not served
// any more.
func (a *apiServer) with(ctx context.Context, k kind, f func(kube.Resource) error) error {
	discover := func(bool) (v string, err error) {
		// All users share the answer, so none of them waits for another one's turn.
		err = a.queue.run(shared(ctx), func() error {
			v, err = a.client.Served(ctx, k.group, knownVersions[k.group])
			return err
		})
		return v, err
	}
	return a.versions.Use(k.group, discover, func(version string) error {
		return f(kube.Resource{Group: k.group, Version: version, Plural: k.plural, Kind: k.kind})
	})
}

// request is with for one request, which waits for its turn.
func (a *apiServer) request(ctx context.Context, k kind, f func(kube.Resource) error) error {
	return a.with(ctx, k, func(res kube.Resource) error {
		return a.queue.run(ctx, func() error { return f(res) })
	})
}

func (a *apiServer) get(ctx context.Context, k kind, ns, name string, into any) error {
	return a.request(ctx, k, func(res kube.Resource) error { return a.client.Get(ctx, res, ns, name, into) })
}

func (a *apiServer) list(ctx context.Context, k kind, ns string, labels map[string]string, fromCache bool, into any) error {
	return a.request(ctx, k, func(res kube.Resource) error {
		return a.client.List(ctx, res, ns, selectorOf(labels), fromCache, into)
	})
}

// create creates a movement in the version that is served, and returns it as the
// server has it.
func (a *apiServer) create(ctx context.Context, dm *nnf.DataMovement) (*nnf.DataMovement, error) {
	made := new(nnf.DataMovement)
	return made, a.request(ctx, kindMovement, func(res kube.Resource) error {
		dm.APIVersion = res.Group + "/" + res.Version
		return a.client.Create(ctx, res, dm.Namespace, dm, made)
	})
}

// patch merges a change into the movement with that UID, and into no other one of
// its name.
func (a *apiServer) patch(ctx context.Context, dm *nnf.DataMovement, spec map[string]any) (*nnf.DataMovement, error) {
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": dm.UID}, "spec": spec})
	if err != nil {
		return nil, err
	}
	after := new(nnf.DataMovement)
	return after, a.request(ctx, kindMovement, func(res kube.Resource) error {
		return a.client.Patch(ctx, res, dm.Namespace, dm.Name, "", types.MergePatchType, body, after)
	})
}

// delete deletes the movement with that UID, and no other one of its name.
func (a *apiServer) delete(ctx context.Context, dm *nnf.DataMovement) error {
	return a.request(ctx, kindMovement, func(res kube.Resource) error {
		return a.client.Delete(ctx, res, dm.Namespace, dm.Name, dm.UID)
	})
}

// watch does not wait for a turn: all users share it.
func (a *apiServer) watch(ctx context.Context, ns string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error {
	return a.with(ctx, kindMovement, func(res kube.Resource) error { return a.client.Watch(ctx, res, ns, o, h) })
}

// selectorOf writes a label selector. Values were checked, or are ours.
func selectorOf(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}
