package server

import (
	"context"
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

// Client is what the service asks of the API server; Cluster is the real one.
type Client interface {
	Served(ctx context.Context, group string, known []string) (string, error)
	Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	Create(ctx context.Context, r kube.Resource, namespace string, obj, into any) error
	Patch(ctx context.Context, r kube.Resource, namespace, name, subresource string, pt types.PatchType, body []byte, into any) error
	Delete(ctx context.Context, r kube.Resource, namespace, name string, uid types.UID) error
	ClientMounts(ctx context.Context, r kube.Resource, namespace, selector string, atHand bool) ([]*dws.ClientMount, error)
	FileSystems(ctx context.Context, r kube.Resource) ([]*lus.LustreFileSystem, error)
	Profiles(ctx context.Context, r kube.Resource, namespace string) ([]*nnf.DataMovementProfile, error)
	Movements(ctx context.Context, r kube.Resource, selector string) ([]*nnf.DataMovement, error)
	Watch(ctx context.Context, r kube.Resource, namespace string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error
}

// Cluster is a Client of an API server.
type Cluster struct{ *kube.Client }

// Delete deletes one object if it is still the one with that UID.
func (c Cluster) Delete(ctx context.Context, r kube.Resource, ns, name string, uid types.UID) error {
	return c.DeleteObject(ctx, r, ns, name, uid)
}

// ClientMounts lists those of a namespace, "" for all. A list at hand may be out
// of date.
func (c Cluster) ClientMounts(ctx context.Context, r kube.Resource, ns, selector string, atHand bool) ([]*dws.ClientMount, error) {
	if atHand {
		return kube.ListCached[dws.ClientMount](ctx, c.Client, r, ns, selector)
	}
	return kube.List[dws.ClientMount](ctx, c.Client, r, ns, selector)
}

// FileSystems lists those of all namespaces.
func (c Cluster) FileSystems(ctx context.Context, r kube.Resource) ([]*lus.LustreFileSystem, error) {
	return kube.List[lus.LustreFileSystem](ctx, c.Client, r, "", "")
}

// Profiles lists those of a namespace.
func (c Cluster) Profiles(ctx context.Context, r kube.Resource, ns string) ([]*nnf.DataMovementProfile, error) {
	return kube.List[nnf.DataMovementProfile](ctx, c.Client, r, ns, "")
}

// Movements lists those of all namespaces.
func (c Cluster) Movements(ctx context.Context, r kube.Resource, selector string) ([]*nnf.DataMovement, error) {
	return kube.List[nnf.DataMovement](ctx, c.Client, r, "", selector)
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

// remote remembers which versions the API server serves. They are asked for when
// first needed, and again when one is not served any more.
type remote struct {
	Client
	versions kube.Versions
}

func newRemote(c Client) *remote { return &remote{Client: c} }

// with calls f with the resource, and once more if its version has gone.
func (r *remote) with(ctx context.Context, k kind, f func(kube.Resource) error) error {
	discover := func(bool) (string, error) { return r.Served(ctx, k.group, knownVersions[k.group]) }
	return r.versions.Use(k.group, discover, func(version string) error {
		return f(kube.Resource{Group: k.group, Version: version, Plural: k.plural, Kind: k.kind})
	})
}

func (r *remote) get(ctx context.Context, k kind, ns, name string, into any) error {
	return r.with(ctx, k, func(res kube.Resource) error { return r.Get(ctx, res, ns, name, into) })
}

// selectorOf writes a label selector. Values were checked, or are ours.
func selectorOf(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}
