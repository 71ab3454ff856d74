package clientmount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// Client sends the requests of the controller to the API server. Requests have the
// priority of their context (kube.WithPriority).
type Client interface {
	// Served finds the version of a resource to use.
	Served(ctx context.Context, r kube.Resource, known []string) (string, error)
	Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	Patch(ctx context.Context, r kube.Resource, namespace, name, subresource string, pt types.PatchType, body []byte, into any) error
	// Servers lists Servers objects of all namespaces by labels.
	Servers(ctx context.Context, r kube.Resource, selector string) ([]*dws.Servers, error)
	// Watch passes events to the handler until ctx ends or the version is no longer
	// served.
	Watch(ctx context.Context, r kube.Resource, namespace string, onState func(kube.State), h kube.Handler[dws.ClientMount]) error
}

// Resource returns the resource of ClientMounts in a version; for a lookup of the version, "".
func Resource(version string) kube.Resource {
	return kube.Resource{Group: api.GroupDWS, Version: version, Plural: "clientmounts", Kind: "ClientMount"}
}

// NewClient returns the Client that uses c.
func NewClient(c *kube.Client) Client { return server{c} }

// server implements Client with a kube.Client.
type server struct{ *kube.Client }

// Watch follows one resource in one namespace.
func (s server) Watch(ctx context.Context, r kube.Resource, namespace string, onState func(kube.State), h kube.Handler[dws.ClientMount]) error {
	return kube.Watch(ctx, s.Client, r, namespace, kube.WatchOptions{OnState: onState}, h)
}

// Servers lists Servers objects of all namespaces by labels.
func (s server) Servers(ctx context.Context, r kube.Resource, selector string) ([]*dws.Servers, error) {
	return kube.List[dws.Servers](ctx, s.Client, r, "", selector)
}

// remote contains the requests of the reconciler: reads of single objects and patches,
// never a write of a whole object.
type remote struct {
	client Client
	mounts func() kube.Resource // in the version found by discovery

	versions *kube.Versions // of the other resources

	profiles    *shared[*nnf.StorageProfile]
	discoveries *shared[string]
}

// profileKind is the kind of storage profiles.
const profileKind = "NnfStorageProfile"

// meter sums the time that a reconcile waits for the API server.
type meter struct {
	Client
	spent time.Duration
	note  func(request string, started time.Time, err error) // is called after each request
}

func (m *meter) Get(ctx context.Context, r kube.Resource, namespace, name string, into any) (err error) {
	defer func(started time.Time) { m.add(mountstate.NameRead(r.Kind), started, err) }(time.Now())
	return m.Client.Get(ctx, r, namespace, name, into)
}

func (m *meter) Patch(ctx context.Context, r kube.Resource, namespace, name, sub string, pt types.PatchType, body []byte, into any) (err error) {
	defer func(started time.Time) { m.add(mountstate.NameWrite(sub), started, err) }(time.Now())
	return m.Client.Patch(ctx, r, namespace, name, sub, pt, body, into)
}

func (m *meter) Served(ctx context.Context, r kube.Resource, known []string) (version string, err error) {
	defer func(started time.Time) { m.add(mountstate.NameServed, started, err) }(time.Now())
	return m.Client.Served(ctx, r, known)
}

func (m *meter) add(request string, started time.Time, err error) {
	m.spent += time.Since(started)
	m.note(request, started, err)
}

// profile returns one profile by name; the caller must not change it. An administrator
// may correct even a pinned profile, so each attempt reads it again. Concurrent attempts
// share one read. If fresh is set, they share only a read whose request is sent after the
// call; otherwise also one that is running or ended less than shareFor ago.
func (c *remote) profile(ctx context.Context, namespace, name string, fresh bool) (*nnf.StorageProfile, error) {
	return c.profiles.get(ctx, namespace+"/"+name, fresh, func(ctx context.Context) (*nnf.StorageProfile, error) {
		p := new(nnf.StorageProfile)
		return p, c.getNNF(ctx, "nnfstorageprofiles", profileKind, namespace, name, p)
	})
}

// getNNF reads an object of the nnf group.
func (c *remote) getNNF(ctx context.Context, plural, kind, namespace, name string, into any) error {
	return c.use(ctx, kube.Resource{Group: api.GroupNNF, Plural: plural, Kind: kind}, api.VersionsNNF, func(r kube.Resource) error {
		return c.client.Get(ctx, r, namespace, name, into)
	})
}

// use calls f with a resource in the served version, of the known ones in order of preference.
// Attempts share the discovery, unless the version just found is wrong.
func (c *remote) use(ctx context.Context, r kube.Resource, known []string, f func(kube.Resource) error) error {
	discover := func(again bool) (string, error) {
		return c.discoveries.get(ctx, r.Plural+"."+r.Group, again, func(ctx context.Context) (string, error) {
			return c.client.Served(ctx, r, known)
		})
	}
	return c.versions.Use(r, known, discover, f)
}

// unanswered reports whether a request failed because the API server is down, overloaded
// or restarting. It returns false if the object does not exist or must not be read.
func unanswered(err error) bool {
	e := (*kube.Error)(nil)
	return errors.As(err, &e) && !kube.IsNotFound(err) && !kube.IsForbidden(err)
}

// findServers finds the Servers object of the allocation through the owner of the object,
// an NnfStorage.
func (a *attempt) findServers() (*dws.Servers, error) {
	storage := new(nnf.StorageOwner)
	if err := a.remote.getNNF(a.ctx, "nnfstorages", "NnfStorage", a.cm.Label(api.LabelOwnerNamespace), a.cm.Label(api.LabelOwnerName), storage); err != nil {
		return nil, err
	}
	var keys []string
	values := map[string]string{}
	add := func(key, value string) { keys = append(keys, key); values[key] = value }
	switch kind := storage.Labels[api.LabelOwnerKind]; kind {
	case "Workflow":
		add(api.LabelWorkflowName, storage.Labels[api.LabelWorkflowName])
		add(api.LabelWorkflowNamespace, storage.Labels[api.LabelWorkflowNamespace])
		add(api.LabelDirectiveIndex, a.cm.Label(api.LabelDirectiveIndex))
	case "PersistentStorageInstance":
		add(api.LabelOwnerKind, kind)
		add(api.LabelOwnerName, storage.Labels[api.LabelOwnerName])
		add(api.LabelOwnerNamespace, storage.Labels[api.LabelOwnerNamespace])
	default:
		return nil, fmt.Errorf("the owner of NnfStorage %s has the kind %.60q, expected Workflow or PersistentStorageInstance", storage.Name, kind)
	}
	var selector []string
	for _, k := range keys {
		if values[k] == "" {
			return nil, fmt.Errorf("label %s is missing, cannot find the Servers object", k)
		}
		selector = append(selector, k+"="+values[k])
	}
	var list []*dws.Servers
	servers := kube.Resource{Group: api.GroupDWS, Plural: "servers", Kind: "Servers"}
	err := a.remote.use(a.ctx, servers, startingWith(a.remote.mounts().Version, api.VersionsDWS), func(r kube.Resource) (err error) {
		list, err = a.remote.client.Servers(a.ctx, r, strings.Join(selector, ","))
		return err
	})
	if err != nil {
		return nil, err
	}
	if len(list) != 1 {
		return nil, fmt.Errorf("%d Servers objects match %s, expected one", len(list), strings.Join(selector, ","))
	}
	return list[0], nil
}

// startingWith returns the versions, with one of them moved to the start.
func startingWith(first string, versions []string) []string {
	return append([]string{first}, slices.DeleteFunc(slices.Clone(versions), func(v string) bool { return v == first })...)
}

// finalizerTries bounds the attempts to patch a list of finalizers that other clients
// change at the same time.
const finalizerTries = 4

// addFinalizer adds our finalizer to the object. It uses a JSON patch that tests the
// known list, so it cannot drop another finalizer and does not fail because of unrelated
// changes.
func (c *remote) addFinalizer(ctx context.Context, cm *dws.ClientMount) error {
	return c.patchFinalizers(ctx, cm, func() []patchOp {
		switch {
		case hasFinalizer(cm):
			return nil
		case len(cm.Finalizers) == 0:
			return []patchOp{{"test", "/metadata/finalizers", nil}, {"add", "/metadata/finalizers", []string{api.FinalizerClientMount}}}
		}
		return []patchOp{{"test", "/metadata/finalizers", cm.Finalizers}, {"add", "/metadata/finalizers/-", api.FinalizerClientMount}}
	})
}

// removeFinalizer removes only our finalizer from the list.
func (c *remote) removeFinalizer(ctx context.Context, cm *dws.ClientMount) error {
	return c.patchFinalizers(ctx, cm, func() []patchOp {
		i := slices.Index(cm.Finalizers, api.FinalizerClientMount)
		if i < 0 {
			return nil
		}
		path := fmt.Sprintf("/metadata/finalizers/%d", i)
		return []patchOp{{"test", path, api.FinalizerClientMount}, {"remove", path, nil}}
	})
}

type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// patchFinalizers sends the operations that ops returns; none means that nothing has to
// be done. If the list of finalizers has changed, it reads the object again and retries.
func (c *remote) patchFinalizers(ctx context.Context, cm *dws.ClientMount, ops func() []patchOp) error {
	ctx = kube.Finishing(ctx)
	var err error
	for range finalizerTries {
		list := ops()
		if len(list) == 0 {
			return nil
		}
		list = append([]patchOp{{"test", "/metadata/uid", cm.UID}}, list...)
		body, merr := json.Marshal(list)
		if merr != nil {
			return merr
		}
		out := new(dws.ClientMount)
		failpoint.At("finalizers/write")
		err = c.client.Patch(ctx, c.mounts(), cm.Namespace, cm.Name, "", types.JSONPatchType, body, out)
		if err == nil {
			failpoint.At("finalizers/written")
			cm.Finalizers = out.Finalizers
			return nil
		}
		if !kube.IsInvalid(err) {
			return err
		}
		fresh := new(dws.ClientMount)
		if err := c.client.Get(ctx, c.mounts(), cm.Namespace, cm.Name, fresh); err != nil {
			return err
		}
		if fresh.UID != cm.UID {
			return errSuperseded
		}
		cm.Finalizers = fresh.Finalizers
	}
	return fmt.Errorf("the list of finalizers keeps changing: %w", err)
}

func hasFinalizer(o metav1.Object) bool {
	return slices.Contains(o.GetFinalizers(), api.FinalizerClientMount)
}

// patchStatus writes the whole status as a merge patch of the subresource. The patch has
// no resource version, so there are no conflicts, and it keeps fields of newer schemas.
func (c *remote) patchStatus(ctx context.Context, cm *dws.ClientMount, s *dws.ClientMountStatus) error {
	status := map[string]any{"mounts": s.Mounts, "allReady": s.AllReady, "error": nil}
	if s.Error != nil {
		status["error"] = s.Error
	}
	// With the uid, the server rejects the patch if the object was replaced.
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"uid": cm.UID}, "status": status})
	if err != nil {
		return err
	}
	switch {
	case s.Error != nil:
		ctx = kube.Reporting(ctx)
	case s.AllReady:
		ctx = kube.Finishing(ctx)
	}
	failpoint.At("status/write")
	err = c.client.Patch(ctx, c.mounts(), cm.Namespace, cm.Name, "status", types.MergePatchType, body, new(dws.ClientMount))
	if err == nil {
		failpoint.At("status/written")
	}
	return err
}

// shareFor is how long after its end a read may still serve callers that do not
// need a fresh one.
const shareFor = time.Second

// shared lets attempts share concurrent reads with the same key. It is not a cache: it
// drops a read shareFor after its end.
type shared[T any] struct {
	mu    sync.Mutex
	reads map[string]*read[T]
}

// read is one read and its waiting callers. The lock of shared guards what may
// change before done is closed.
type read[T any] struct {
	priority *kube.Priority // the highest priority of the waiting callers
	sent     bool           // the request is sent, so the result may be older than a new call
	waiters  int
	cancel   context.CancelFunc
	done     chan struct{}

	value T
	err   error
	panic any
}

// get returns the result of f, or that of another call of f for the same key: one that is
// running or ended less than shareFor ago or, if fresh is set, one whose request was not
// sent yet when get was called. Errors are shared like values. f has a separate context,
// which is cancelled when no caller is waiting.
func (s *shared[T]) get(ctx context.Context, key string, fresh bool, f func(context.Context) (T, error)) (T, error) {
	priority := kube.PriorityOf(ctx)
	s.mu.Lock()
	r := s.reads[key]
	if r == nil || (fresh && r.sent) {
		r = s.start(ctx, key, f)
	}
	r.waiters++
	s.mu.Unlock()
	for {
		changed := priority.Changed()
		r.priority.Join(priority)
		select {
		case <-r.done:
			if r.panic != nil {
				panic(r.panic)
			}
			return r.value, r.err
		case <-changed:
		case <-ctx.Done():
			s.leave(key, r)
			var none T
			return none, ctx.Err()
		}
	}
}

// start starts a read. The caller holds the lock.
func (s *shared[T]) start(ctx context.Context, key string, f func(context.Context) (T, error)) *read[T] {
	r := &read[T]{priority: kube.RetryPriority(0), done: make(chan struct{})}
	if priority := kube.PriorityOf(ctx); priority != nil {
		r.priority = priority.Copy()
	}
	ctx, r.cancel = context.WithCancel(kube.WithPriority(context.WithoutCancel(ctx), r.priority))
	ctx = kube.WithSent(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		r.sent = true
	})
	if s.reads == nil {
		s.reads = map[string]*read[T]{}
	}
	s.reads[key] = r
	go func() {
		defer func() {
			r.panic = recover()
			r.cancel()
			s.mu.Lock()
			r.sent = true
			s.mu.Unlock()
			time.AfterFunc(shareFor, func() { s.forget(key, r) })
			close(r.done)
		}()
		r.value, r.err = f(ctx)
	}()
	return r
}

// leave is called for a caller that no longer waits.
func (s *shared[T]) leave(key string, r *read[T]) {
	s.mu.Lock()
	r.waiters--
	last := r.waiters == 0
	if last && s.reads[key] == r {
		delete(s.reads, key)
	}
	s.mu.Unlock()
	if last {
		r.cancel()
	}
}

func (s *shared[T]) forget(key string, r *read[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.reads[key] == r {
		delete(s.reads, key)
	}
}
