package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// writers is the number of requests that the manager sends at the same time.
const writers = 32

// profileName is the storage profile of all jobs.
const profileName = "fleet-0"

// manager replaces the NNF software on the rabbits: it creates the ClientMounts of a job,
// follows all of them with one watch, and changes and deletes them.
type manager struct {
	client   *kube.Client
	versions kube.Versions
	stop     context.CancelFunc
	done     chan struct{}

	mu      sync.Mutex
	name    string                // of the ClientMounts of the running job
	objects map[string]*lifecycle // by node
}

// lifecycle has the times of one ClientMount.
type lifecycle struct {
	created   time.Time // before the request
	mounted   time.Time // when the manager saw it ready
	ended     time.Time // before the request to unmount
	unmounted time.Time
	gone      time.Time
	failed    bool // the status has an error
}

var managerAccount = product.Account{Name: "fleet-manager", Namespace: "default"}

// managerRules are the rights of the manager.
func managerRules() []any {
	return []any{
		fixture.Rule(api.GroupDWS, "clientmounts", "get", "list", "watch", "create", "patch", "delete"),
		fixture.Rule(api.GroupNNF, "nnfdatamovements", "get", "list", "watch"),
		fixture.Rule(api.GroupNNF, "nnfdatamovements/status", "patch"),
	}
}

// newManager starts the manager. Its account is not an administrator, whose requests are
// exempt from the flow control of the API server.
func newManager(ctx context.Context, a *accounts) (*manager, error) {
	token, err := a.create(ctx, managerAccount, managerRules()...)
	if err != nil {
		return nil, err
	}
	path, err := a.kubeconfig(managerAccount.Name, token)
	if err != nil {
		return nil, err
	}
	client, err := kube.Dial(kube.Options{Kubeconfig: path, QPS: -1, UserAgent: "fleetsim"})
	if err != nil {
		return nil, err
	}
	config, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	following, stop := context.WithCancel(context.Background())
	m := &manager{client: client, stop: stop, done: make(chan struct{}), objects: map[string]*lifecycle{}}
	go func() {
		defer close(m.done)
		for following.Err() == nil {
			_ = m.use(following, func(r kube.Resource) error {
				return m.follow(following, objects.Resource(schema.GroupVersionResource{Group: r.Group, Version: r.Version, Resource: r.Plural}))
			})
			m.versions.Forget(clientMounts)
			kube.Pause(following, time.Second)
		}
	}()
	return m, nil
}

// follow follows all ClientMounts until a request fails. Like the controllers of the NNF software, it
// continues at once when the API server ends a watch, which happens when many objects change at the
// same time: the server gives up a watch whose client does not keep up.
func (m *manager) follow(ctx context.Context, objects dynamic.ResourceInterface) error {
	list, err := objects.List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return gone(err)
	}
	var all []*dws.ClientMount
	for i := range list.Items {
		cm, err := clientMount(&list.Items[i])
		if err != nil {
			return err
		}
		all = append(all, cm)
	}
	m.replace(all)
	for position := list.GetResourceVersion(); ; {
		w, err := objects.Watch(ctx, metav1.ListOptions{ResourceVersion: position, AllowWatchBookmarks: true})
		if err != nil {
			return gone(err)
		}
		for e := range w.ResultChan() {
			o, ok := e.Object.(*unstructured.Unstructured)
			if !ok {
				w.Stop()
				return gone(apierrors.FromObject(e.Object))
			}
			position = o.GetResourceVersion()
			if e.Type == apiwatch.Bookmark {
				continue
			}
			cm, err := clientMount(o)
			switch {
			case err != nil:
				w.Stop()
				return err
			case e.Type == apiwatch.Deleted:
				m.gone(cm.Namespace, cm.Name)
			default:
				m.upsert(cm)
			}
		}
	}
}

// gone returns kube.ErrVersionGone if the version of the objects is not served.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return kube.ErrVersionGone
	}
	return err
}

func clientMount(o *unstructured.Unstructured) (*dws.ClientMount, error) {
	data, err := o.MarshalJSON()
	if err != nil {
		return nil, err
	}
	cm := new(dws.ClientMount)
	return cm, json.Unmarshal(data, cm)
}

// use calls f with the served version of ClientMounts, and again if it has changed.
func (m *manager) use(ctx context.Context, f func(kube.Resource) error) error {
	discover := func(bool) (string, error) { return m.client.Served(ctx, clientMounts, api.VersionsDWS) }
	return m.versions.Use(clientMounts, api.VersionsDWS, discover, f)
}

// clientMounts is the resource without its version.
var clientMounts = clientmount.Resource("")

func (m *manager) close() {
	m.stop()
	<-m.done
}

// send is use for one request, which it repeats like persist.
func (m *manager) send(ctx context.Context, f func(kube.Resource) error) error {
	return persist(ctx, func() error { return m.use(ctx, f) })
}

// persist repeats a request for a while if the server does not respond or cannot serve it
// now, as after a restart. f must accept that an earlier attempt succeeded.
func persist(ctx context.Context, f func() error) error {
	end := time.Now().Add(patience)
	for {
		err := f()
		if err == nil || !temporary(err) || ctx.Err() != nil || time.Now().After(end) {
			return err
		}
		kube.Pause(ctx, time.Second)
	}
}

// temporary reports whether an error is not a response, or one with status 401, 429 or 5xx.
func temporary(err error) bool {
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return true
	}
	code := answer.Status().Code
	return code == http.StatusUnauthorized || code == http.StatusTooManyRequests || code >= 500
}

func (m *manager) replace(all []*dws.ClientMount) {
	known := map[string]bool{}
	for _, cm := range all {
		known[cm.Namespace] = true
		m.upsert(cm)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for node, l := range m.objects {
		// An object that has been ready exists, or existed until now.
		if !l.mounted.IsZero() && l.gone.IsZero() && !known[node] {
			l.gone = time.Now()
		}
	}
}

func (m *manager) upsert(cm *dws.ClientMount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.objects[cm.Namespace]
	if l == nil || cm.Name != m.name {
		return
	}
	l.failed = cm.Status.Error != nil
	if !cm.Status.AllReady || len(cm.Status.Mounts) != len(cm.Spec.Mounts) || cm.Status.Mounts[0].State != cm.Spec.DesiredState {
		return
	}
	now := time.Now()
	switch {
	case cm.Spec.DesiredState == dws.Mounted && l.mounted.IsZero():
		l.mounted = now
	case cm.Spec.DesiredState == dws.Unmounted && l.unmounted.IsZero():
		l.unmounted = now
	}
}

func (m *manager) gone(node, name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l := m.objects[node]; l != nil && name == m.name {
		l.gone = time.Now()
	}
}

// waiting returns the nodes whose ClientMount matches.
func (m *manager) waiting(match func(*lifecycle) bool) (nodes []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for node, l := range m.objects {
		if match(l) {
			nodes = append(nodes, node)
		}
	}
	return nodes
}

// await waits until no ClientMount matches.
func (m *manager) await(ctx context.Context, what string, match func(*lifecycle) bool) error {
	return m.awaitOn(ctx, what, nil, match)
}

// awaitOn is await for some nodes; nil means all.
func (m *manager) awaitOn(ctx context.Context, what string, nodes map[string]bool, match func(*lifecycle) bool) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var left []string
	err := wait.For(ctx, what, func() (bool, error) {
		left = slices.DeleteFunc(m.waiting(match), func(node string) bool { return nodes != nil && !nodes[node] })
		return len(left) == 0, nil
	})
	if err != nil {
		return fmt.Errorf("%w: %d nodes left, such as %s", err, len(left), strings.Join(left[:min(len(left), 3)], " "))
	}
	return nil
}

// create creates one ClientMount per node, as fast as the server accepts them.
func (m *manager) create(ctx context.Context, name string, nodes []*simulated, spec func(*simulated) fixture.ClientMountSpec) error {
	m.mu.Lock()
	m.name, m.objects = name, map[string]*lifecycle{}
	for _, s := range nodes {
		m.objects[s.name] = new(lifecycle)
	}
	m.mu.Unlock()
	return parallel(writers, nodes, func(s *simulated) error {
		cm := fixture.ClientMount(name, s.name, spec(s))
		m.mu.Lock()
		m.objects[s.name].created = time.Now()
		m.mu.Unlock()
		return m.send(ctx, func(r kube.Resource) error {
			cm["apiVersion"] = r.Group + "/" + r.Version
			err := m.client.Create(ctx, r, s.name, cm, nil)
			if kube.IsAlreadyExists(err) {
				err = nil
			}
			return err
		})
	})
}

// unmount sets the desired state of all ClientMounts and waits until it is reached.
func (m *manager) unmount(ctx context.Context, nodes []*simulated) error {
	err := parallel(writers, nodes, func(s *simulated) error {
		m.mu.Lock()
		m.objects[s.name].ended = time.Now()
		m.mu.Unlock()
		return m.send(ctx, func(r kube.Resource) error {
			return m.client.Patch(ctx, r, s.name, m.name, "", types.MergePatchType, []byte(`{"spec":{"desiredState":"unmounted"}}`), nil)
		})
	})
	if err != nil {
		return err
	}
	return m.await(ctx, "the unmount on all nodes", func(l *lifecycle) bool { return l.unmounted.IsZero() })
}

// remove deletes all ClientMounts and waits until they are gone.
func (m *manager) remove(ctx context.Context, nodes []*simulated) error {
	err := parallel(writers, nodes, func(s *simulated) error {
		return m.send(ctx, func(r kube.Resource) error {
			err := m.client.Delete(ctx, r, s.name, m.name)
			if kube.IsNotFound(err) {
				err = nil
			}
			return err
		})
	})
	if err != nil {
		return err
	}
	return m.await(ctx, "the end of all ClientMounts", func(l *lifecycle) bool { return l.gone.IsZero() })
}

// times returns, for the ClientMounts that have been mounted, the seconds from a time
// until the manager saw them ready.
func (m *manager) times(from func(*lifecycle) time.Time) (out []float64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.objects {
		if !l.mounted.IsZero() {
			out = append(out, l.mounted.Sub(from(l)).Seconds())
		}
	}
	return out
}

// slow returns whether the mount and the unmount of a node took so long that the node may
// have reported progress: 0 to 2.
func (m *manager) slow(node string) (n int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := m.objects[node]
	if l == nil {
		return 0
	}
	for _, took := range []time.Duration{l.mounted.Sub(l.created), l.unmounted.Sub(l.ended)} {
		if took >= progressAfter {
			n++
		}
	}
	return n
}

// mounted returns the number of ClientMounts that have been ready.
func (m *manager) mounted() int {
	return len(m.times(func(l *lifecycle) time.Time { return l.created }))
}

// lastMounted returns the time from since until the last ClientMount was ready.
func (m *manager) lastMounted(since time.Time) (last time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.objects {
		if !l.mounted.IsZero() {
			last = max(last, l.mounted.Sub(since))
		}
	}
	return last
}

// clean returns the nodes that have not mounted exactly once for each job, or that have
// mounts, active volumes or records left.
func clean(nodes []*simulated) (wrong []string) {
	for _, s := range nodes {
		mounted, active, made := s.machine.state()
		records, unreadable, err := clientmount.ReadRecords(s.runtime())
		if made != s.mounts || mounted > 0 || active || len(records) > 0 || len(unreadable) > 0 || err != nil {
			wrong = append(wrong, fmt.Sprintf("%s: %d mounts made, expected %d; left: %d mounts, volume active %t, %d records, %d unreadable, %v",
				s.name, made, s.mounts, mounted, active, len(records), len(unreadable), err))
		}
	}
	return wrong
}

// parallel calls f for each item, from n goroutines, until the first error.
func parallel[T any](n int, items []T, f func(T) error) error {
	var group sync.WaitGroup
	var once sync.Once
	var failed error
	next, stop := make(chan T), make(chan struct{})
	for range n {
		group.Go(func() {
			for item := range next {
				if err := f(item); err != nil {
					once.Do(func() { failed = err; close(stop) })
				}
			}
		})
	}
feed:
	for _, item := range items {
		select {
		case next <- item:
		case <-stop:
			break feed
		}
	}
	close(next)
	group.Wait()
	return failed
}
