package server

import (
	"container/list"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Client sends requests to the API server. Cluster implements it.
type Client interface {
	Served(ctx context.Context, r kube.Resource, known []string) (string, error)
	Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	// GetCached reads an object from the server's cache, which may be outdated.
	GetCached(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	// List reads the objects of a namespace, or of all namespaces for "", into a
	// pointer to a slice of pointers. A list from the server's cache may be outdated.
	List(ctx context.Context, r kube.Resource, namespace, selector string, fromCache bool, into any) error
	Create(ctx context.Context, r kube.Resource, namespace string, obj, into any) error
	Patch(ctx context.Context, r kube.Resource, namespace, name, subresource string, pt types.PatchType, body []byte, into any) error
	// Delete deletes an object if it still has that UID.
	Delete(ctx context.Context, r kube.Resource, namespace, name string, uid types.UID) error
	Watch(ctx context.Context, r kube.Resource, namespace string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error
}

// Cluster implements Client.
type Cluster struct{ *kube.Client }

// Delete implements Client.
func (c Cluster) Delete(ctx context.Context, r kube.Resource, ns, name string, uid types.UID) error {
	return c.DeleteObject(ctx, r, ns, name, uid)
}

// List implements Client.
func (c Cluster) List(ctx context.Context, r kube.Resource, ns, selector string, fromCache bool, into any) error {
	switch out := into.(type) {
	case *[]*dws.ClientMount:
		return readList(ctx, c, r, ns, selector, fromCache, out)
	case *[]*lus.LustreFileSystem:
		return readList(ctx, c, r, ns, selector, fromCache, out)
	case *[]*nnf.DataMovementProfile:
		return readList(ctx, c, r, ns, selector, fromCache, out)
	case *[]*nnf.DataMovement:
		return readList(ctx, c, r, ns, selector, fromCache, out)
	}
	return fmt.Errorf("lists of %s cannot be read into a %T", r.Kind, into)
}

func readList[T any, P kube.Object[T]](ctx context.Context, c Cluster, r kube.Resource, ns, selector string, fromCache bool, into *[]*T) (err error) {
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

// kind is a resource without its version.
type kind struct{ group, plural, kind string }

func (k kind) resource() kube.Resource {
	return kube.Resource{Group: k.group, Plural: k.plural, Kind: k.kind}
}

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

// apiServer sends requests in the versions that the API server serves. A request on
// behalf of a user waits for the user's turn. apiServer starts with the
// newest known versions, and discovers one when it is not, or no longer, served.
type apiServer struct {
	client   Client
	queue    fairQueue
	versions kube.Versions
}

func newAPIServer(c Client) *apiServer { return &apiServer{client: c} }

// with calls f with the resource, and a second time if its version is no longer
// served.
func (a *apiServer) with(ctx context.Context, k kind, f func(kube.Resource) error) error {
	discover := func(bool) (v string, err error) {
		// All users share the result, so no user waits for the turn of another.
		err = a.queue.run(shared(ctx), func() error {
			v, err = a.client.Served(ctx, k.resource(), knownVersions[k.group])
			return err
		})
		return v, err
	}
	return a.versions.Use(k.resource(), knownVersions[k.group], discover, f)
}

// request is with for a single request, which waits for its turn.
func (a *apiServer) request(ctx context.Context, k kind, f func(kube.Resource) error) error {
	return a.with(ctx, k, func(res kube.Resource) error {
		return a.queue.run(ctx, func() error { return f(res) })
	})
}

func (a *apiServer) get(ctx context.Context, k kind, ns, name string, into any) error {
	return a.request(ctx, k, func(res kube.Resource) error { return a.client.Get(ctx, res, ns, name, into) })
}

func (a *apiServer) getCached(ctx context.Context, k kind, ns, name string, into any) error {
	return a.request(ctx, k, func(res kube.Resource) error { return a.client.GetCached(ctx, res, ns, name, into) })
}

func (a *apiServer) list(ctx context.Context, k kind, ns string, labels map[string]string, fromCache bool, into any) error {
	return a.request(ctx, k, func(res kube.Resource) error {
		return a.client.List(ctx, res, ns, selectorOf(labels), fromCache, into)
	})
}

// create creates a movement in the served version, and returns the created object.
func (a *apiServer) create(ctx context.Context, dm *nnf.DataMovement) (*nnf.DataMovement, error) {
	made := new(nnf.DataMovement)
	return made, a.request(ctx, kindMovement, func(res kube.Resource) error {
		dm.APIVersion = res.Group + "/" + res.Version
		return a.client.Create(ctx, res, dm.Namespace, dm, made)
	})
}

// patch merges a change into the movement with that UID. It does not change another
// object with the same name.
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

// delete deletes the movement with that UID. It does not delete another object with
// the same name.
func (a *apiServer) delete(ctx context.Context, dm *nnf.DataMovement) error {
	return a.request(ctx, kindMovement, func(res kube.Resource) error {
		return a.client.Delete(ctx, res, dm.Namespace, dm.Name, dm.UID)
	})
}

// watch starts a watch, which does not wait for a turn because all users share it.
func (a *apiServer) watch(ctx context.Context, ns string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error {
	return a.with(ctx, kindMovement, func(res kube.Resource) error { return a.client.Watch(ctx, res, ns, o, h) })
}

// selectorOf returns a label selector. All values were checked or are our own.
func selectorOf(labels map[string]string) string {
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// requestsPerUser is how many requests to the API server one user may have in
// progress.
const requestsPerUser = 8

// APIShare limits the requests to the API server of all users together and of each
// user. A QPS of 0 means no limit.
type APIShare struct {
	QPS, Burst int
	Percent    int // share of one user, of QPS and Burst
}

// fairQueue schedules the users' requests to the API server round-robin: one request
// of each user in turn, at the rate of all users together and at most at the share of
// each user. A user waits for at most one request of each other user, however many
// requests the others send; a user within the share does not wait. The zero value has
// no limit.
type fairQueue struct {
	mu    sync.Mutex
	share APIShare
	all   *rate.Limiter // nil: no limit
	users map[uint32]*userQueue
	ready list.List // queues with waiting requests, the next one first
	timer *time.Timer
	swept time.Time
}

// userQueue is the queue of one user. It is removed when it is empty and its bucket is
// full.
type userQueue struct {
	uid     uint32
	bucket  *rate.Limiter // nil: no limit
	active  int           // requests in progress
	waiting list.List     // of *ticket
	place   *list.Element // in ready, or nil
}

// ticket is one waiting request.
type ticket struct {
	granted chan struct{}
	place   *list.Element // nil when granted
}

// set changes the limits.
func (t *fairQueue) set(s APIShare) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if s == t.share {
		return
	}
	t.share, t.all = s, nil
	if s.QPS > 0 {
		t.all = rate.NewLimiter(rate.Limit(s.QPS), max(s.Burst, 1))
	}
	for _, q := range t.users {
		q.bucket = t.bucket()
	}
	t.serve()
}

func (t *fairQueue) bucket() *rate.Limiter {
	if t.share.QPS <= 0 {
		return nil
	}
	part := float64(t.share.Percent) / 100
	return rate.NewLimiter(rate.Limit(float64(t.share.QPS)*part), max(int(float64(t.share.Burst)*part), 1))
}

// run calls f at the turn of the caller in ctx. Requests of the daemon itself, which
// have no caller, do not wait, but count towards the limit of all users.
func (t *fairQueue) run(ctx context.Context, f func() error) error {
	c, ok := ctx.Value(callerKey{}).(datamovement.Caller)
	if !ok {
		t.mu.Lock()
		if t.all != nil {
			t.all.ReserveN(time.Now(), 1)
		}
		t.mu.Unlock()
		return f()
	}
	q, k := t.enter(c.UID)
	select {
	case <-k.granted:
	case <-ctx.Done():
		if !t.leave(q, k) {
			return context.Cause(ctx)
		}
		<-k.granted // granted concurrently
		t.done(q)
		return context.Cause(ctx)
	}
	defer t.done(q)
	return f()
}

func (t *fairQueue) enter(uid uint32) (*userQueue, *ticket) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep()
	q := t.users[uid]
	if q == nil {
		if t.users == nil {
			t.users = make(map[uint32]*userQueue)
		}
		q = &userQueue{uid: uid, bucket: t.bucket()}
		t.users[uid] = q
	}
	k := &ticket{granted: make(chan struct{})}
	k.place = q.waiting.PushBack(k)
	if q.place == nil {
		q.place = t.ready.PushBack(q)
	}
	t.serve()
	return q, k
}

// leave removes a waiting request. It reports whether the request was granted already.
func (t *fairQueue) leave(q *userQueue, k *ticket) (granted bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.place == nil {
		return true
	}
	t.remove(q, k)
	t.forget(q)
	return false
}

func (t *fairQueue) remove(q *userQueue, k *ticket) {
	q.waiting.Remove(k.place)
	k.place = nil
	if q.waiting.Len() == 0 && q.place != nil {
		t.ready.Remove(q.place)
		q.place = nil
	}
}

func (t *fairQueue) done(q *userQueue) {
	t.mu.Lock()
	defer t.mu.Unlock()
	q.active--
	t.forget(q)
	t.serve()
}

// serve grants the requests that may be sent now, and sets a timer for the next call.
// The caller holds mu.
func (t *fairQueue) serve() {
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
	again := time.Duration(-1)
	later := func(l *rate.Limiter, now time.Time) bool {
		if l == nil || l.TokensAt(now) >= 1 {
			return false
		}
		d := time.Duration((1-l.TokensAt(now))/float64(l.Limit())*float64(time.Second)) + time.Microsecond
		if again < 0 || d < again {
			again = d
		}
		return true
	}
	now := time.Now()
rounds:
	for granted := true; granted; {
		granted = false
		e := t.ready.Front()
		for range t.ready.Len() {
			q, next := e.Value.(*userQueue), e.Next()
			switch {
			case q.active >= requestsPerUser || later(q.bucket, now):
			case later(t.all, now):
				break rounds
			default:
				t.grant(q, now)
				granted = true
			}
			e = next
		}
	}
	if again >= 0 {
		t.timer = time.AfterFunc(again, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.serve()
		})
	}
}

// grant grants the first request of q and moves q to the end of the queue.
func (t *fairQueue) grant(q *userQueue, now time.Time) {
	for _, l := range []*rate.Limiter{t.all, q.bucket} {
		if l != nil {
			l.AllowN(now, 1)
		}
	}
	k := q.waiting.Front().Value.(*ticket)
	q.active++
	t.remove(q, k)
	close(k.granted)
	if q.place != nil {
		t.ready.MoveToBack(q.place)
	}
}

// forget removes a queue without state. The caller holds mu.
func (t *fairQueue) forget(q *userQueue) {
	if q.active == 0 && q.waiting.Len() == 0 && (q.bucket == nil || q.bucket.Tokens() >= float64(q.bucket.Burst())) {
		delete(t.users, q.uid)
	}
}

// sweep removes, once a second, the queues whose buckets have refilled. The caller
// holds mu.
func (t *fairQueue) sweep() {
	if now := time.Now(); now.Sub(t.swept) >= time.Second {
		t.swept = now
		for _, q := range t.users {
			t.forget(q)
		}
	}
}

// shared returns ctx for a request whose result all users share, so that no user waits
// for the turn of another.
func shared(ctx context.Context) context.Context { return context.WithValue(ctx, callerKey{}, nil) }
