package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

var (
	clientMounts = schema.GroupVersionResource{Group: "dataworkflowservices.github.io", Version: "v1alpha7", Resource: "clientmounts"}
	profiles     = schema.GroupVersionResource{Group: "nnf.cray.hpe.com", Version: "v1alpha11", Resource: "nnfstorageprofiles"}
)

// shared is the namespace besides its own one that a node follows. Jobs have their storage
// profiles in it.
const shared = "default"

// resync is the interval in which an informer delivers all objects again.
const resync = 10 * time.Hour

// limits of the requests of a node, per second and at once.
const (
	qps   = 20
	burst = 30
)

// node is one compute node. Only the API client is real: a mount is an entry of mounted.
type node struct {
	*transport
	name   string
	client *dynamic.DynamicClient
	rest   rest.Interface // for discovery
	mounts []cache.SharedIndexInformer
	queue  workqueue.RateLimitingInterface

	profiles func() (cache.Store, error) // starts its informer at the first call

	mu      sync.Mutex
	mounted map[string]bool // by the key of the ClientMount

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// start starts a node. Errors are events.
func start(server, ca string, c command, emit func(event)) *node {
	n := &node{name: c.Name, mounted: map[string]bool{}, queue: workqueue.NewRateLimitingQueue(workqueue.DefaultControllerRateLimiter())}
	n.transport = &transport{open: map[net.Conn]bool{}, emit: func(e event) {
		// The time is read first, so that a late event is older than the end of the node.
		e.Node, e.At = c.Node, time.Now().UnixNano()
		if n.ctx.Err() == nil {
			emit(e)
		}
	}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.profiles = sync.OnceValues(n.followProfiles)
	n.running.Go(func() {
		if err := n.run(server, ca, c.Token); err != nil && n.ctx.Err() == nil {
			n.emit(event{Event: "failed", Error: err.Error()})
		}
	})
	return n
}

// wait waits for the end of a cancelled node.
func (n *node) wait() {
	n.queue.ShutDown()
	n.running.Wait()
	n.close()
}

func (n *node) run(server, ca, token string) error {
	config := &rest.Config{
		Host: server, TLSClientConfig: rest.TLSClientConfig{CAFile: ca}, BearerTokenFile: token,
		QPS: qps, Burst: burst, UserAgent: "reference (" + n.name + ")", Dial: n.dial,
		WrapTransport: func(base http.RoundTripper) http.RoundTripper {
			n.transport.base = base
			return n.transport
		},
	}
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	if n.client, err = dynamic.NewForConfigAndClient(config, client); err != nil {
		return err
	}
	raw := dynamic.ConfigFor(config)
	raw.GroupVersion = &schema.GroupVersion{}
	if n.rest, err = rest.RESTClientForConfigAndClient(raw, client); err != nil {
		return err
	}
	if err := n.discover("/api", "/apis", version(clientMounts)); err != nil {
		return err
	}
	n.mounts = []cache.SharedIndexInformer{n.informer(clientMounts, n.name), n.informer(clientMounts, shared)}
	for _, informer := range n.mounts {
		add := func(o any) {
			if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				n.queue.Add(key)
			}
		}
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{AddFunc: add, UpdateFunc: func(_, o any) { add(o) }, DeleteFunc: add}); err != nil {
			return err
		}
	}
	if !n.follow(n.mounts...) {
		return n.ctx.Err()
	}
	n.emit(event{Event: "ready"})
	for range runtime.GOMAXPROCS(0) {
		n.running.Go(n.work)
	}
	return nil
}

func version(r schema.GroupVersionResource) string { return "/apis/" + r.Group + "/" + r.Version }

// discover reads what the server serves. The formats are those that this version of
// client-go accepts. A process without this information ends, and systemd starts it again.
func (n *node) discover(paths ...string) error {
	for _, path := range paths {
		for {
			request := n.rest.Get().AbsPath(path)
			if path == "/api" || path == "/apis" {
				request.SetHeader("Accept", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json")
			}
			if _, err := request.Do(n.ctx).Raw(); err == nil {
				break
			}
			select {
			case <-time.After(time.Second):
			case <-n.ctx.Done():
				return n.ctx.Err()
			}
		}
	}
	return nil
}

func (n *node) informer(r schema.GroupVersionResource, namespace string) cache.SharedIndexInformer {
	resource := n.client.Resource(r).Namespace(namespace)
	return cache.NewSharedIndexInformer(&cache.ListWatch{
		ListFunc: func(o metav1.ListOptions) (kruntime.Object, error) { return resource.List(n.ctx, o) },
		WatchFunc: func(o metav1.ListOptions) (watch.Interface, error) {
			return resource.Watch(n.ctx, o)
		},
	}, new(unstructured.Unstructured), resync, cache.Indexers{})
}

// follow starts informers and waits until they have all objects. It reports false if the
// node ends before.
func (n *node) follow(informers ...cache.SharedIndexInformer) bool {
	n.change(0, len(informers))
	var synced []cache.InformerSynced
	for _, informer := range informers {
		n.running.Go(func() { informer.Run(n.ctx.Done()) })
		synced = append(synced, informer.HasSynced)
	}
	return cache.WaitForCacheSync(n.ctx.Done(), synced...)
}

// followProfiles starts the informer of the storage profiles.
func (n *node) followProfiles() (cache.Store, error) {
	if err := n.discover(version(profiles)); err != nil {
		return nil, err
	}
	informer := n.informer(profiles, shared)
	if !n.follow(informer) {
		return nil, n.ctx.Err()
	}
	return informer.GetStore(), nil
}

// work reconciles ClientMounts until the queue is shut down.
func (n *node) work() {
	for {
		item, end := n.queue.Get()
		if end {
			return
		}
		if again, err := n.reconcile(item.(string)); again || err != nil {
			n.queue.AddRateLimited(item)
		} else {
			n.queue.Forget(item)
		}
		n.queue.Done(item)
	}
}

// profileOf returns an error if the storage profile of a ClientMount does not exist.
func (n *node) profileOf(cm *unstructured.Unstructured) error {
	labels := cm.GetLabels()
	namespace, name := labels[profiles.Group+"/pinned_storage_profile_namespace"], labels[profiles.Group+"/pinned_storage_profile_name"]
	store, err := n.profiles()
	if err != nil {
		return err
	}
	if _, exists, _ := store.GetByKey(namespace + "/" + name); !exists {
		return fmt.Errorf("no storage profile %s/%s", namespace, name)
	}
	return nil
}

// setMounted mounts or unmounts the file systems of a ClientMount.
func (n *node) setMounted(key string, mounted bool) {
	n.mu.Lock()
	changed := n.mounted[key] != mounted
	if n.mounted[key] = mounted; !mounted {
		delete(n.mounted, key)
	}
	n.mu.Unlock()
	switch {
	case changed && mounted:
		n.emit(event{Event: "mounted"})
	case changed:
		n.emit(event{Event: "unmounted"})
	}
}
