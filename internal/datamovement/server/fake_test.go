package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/lus"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// cluster is an API server in memory with a log of its requests.
type cluster struct {
	mu        sync.Mutex
	log       []string
	version   int
	uids      int
	workflow  *dws.Workflow
	system    *dws.SystemConfiguration
	mounts    []*dws.ClientMount
	cached    []*dws.ClientMount // result of a list from the cache; nil: the same
	movements map[string]*nnf.DataMovement
	watches   map[chan func(kube.Handler[nnf.DataMovement])]string // namespace
	failOn    map[string]error                                     // by prefix of the line in the log
	reading   func(*nnf.DataMovement)                              // called before a movement is read
	deleting  func()                                               // called before a movement is deleted, without a lock
	profiles  []*nnf.DataMovementProfile
	onCreate  func() // called after a creation
	over      chan struct{}
	systems   []string // mount roots of the global file systems
	fromCache []string // resources of which an object was read from the server's cache
}

func newCluster() *cluster {
	c := &cluster{
		systems: []string{"/lus/global"}, profiles: []*nnf.DataMovementProfile{profile("default", true)},
		movements: make(map[string]*nnf.DataMovement), over: make(chan struct{}),
		watches: make(map[chan func(kube.Handler[nnf.DataMovement])]string),
		workflow: &dws.Workflow{
			ObjectMeta: metav1.ObjectMeta{Name: "job7", Namespace: "default", UID: "wf-uid"},
			Spec:       dws.WorkflowSpec{UserID: 1001, GroupID: 100},
			Status:     dws.WorkflowStatus{State: dws.StatePreRun, Status: dws.StatusCompleted},
		},
		system: &dws.SystemConfiguration{Spec: dws.SystemConfigurationSpec{StorageNodes: []dws.StorageNode{
			{Type: dws.TypeRabbit, Name: rabbit, ComputesAccess: []dws.ComputeAccess{{Name: node}}},
			{Type: dws.TypeRabbit, Name: "rabbit-02"},
		}}},
	}
	c.mount(node, mount0, dws.TypeGFS2)
	c.mount(rabbit, mount0+"/rabbit-01-3", dws.TypeGFS2)
	return c
}

func (c *cluster) mount(ns, path, typ string) {
	c.mounts = append(c.mounts, &dws.ClientMount{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("cm-%d", len(c.mounts)), Namespace: ns, Labels: map[string]string{
			api.LabelDirectiveIndex: "0", api.LabelWorkflowName: "job7", api.LabelWorkflowNamespace: "default",
		}},
		Spec: dws.ClientMountSpec{DesiredState: dws.Mounted, Mounts: []dws.Mount{{MountPath: path, Type: typ, Device: dws.Device{
			DeviceReference: &dws.ReferenceDevice{ObjectReference: dws.ObjectReference{Kind: "S", Name: typ, Namespace: rabbit}, Data: 3},
		}}}},
		Status: dws.ClientMountStatus{Mounts: []dws.MountStatus{{State: dws.Mounted, Ready: true}}},
	})
}

// request logs a request and returns its error. The caller holds mu.
func (c *cluster) request(what string, args ...any) error {
	line := fmt.Sprintf(what, args...)
	c.log = append(c.log, line)
	for prefix, err := range c.failOn {
		if strings.HasPrefix(line, prefix) {
			return err
		}
	}
	return nil
}

// refuse makes requests fail whose line in the log starts with prefix, all for ""; a nil
// error ends that.
func (c *cluster) refuse(prefix string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failOn == nil {
		c.failOn = make(map[string]error)
	}
	delete(c.failOn, prefix)
	if err != nil {
		c.failOn[prefix] = err
	}
}

func (c *cluster) requests() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.log
	c.log = nil
	return out
}

func apiError(code int32, reason metav1.StatusReason) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code, Reason: reason, Details: &metav1.StatusDetails{Name: "x"}}}
}

var errMissing = apiError(http.StatusNotFound, metav1.StatusReasonNotFound)

func (c *cluster) Served(_ context.Context, r kube.Resource, known []string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return known[0], c.request("discover %s", r.Plural)
}

func (c *cluster) GetCached(ctx context.Context, r kube.Resource, ns, name string, into any) error {
	c.mu.Lock()
	c.fromCache = append(c.fromCache, r.Plural)
	c.mu.Unlock()
	return c.Get(ctx, r, ns, name, into)
}

func (c *cluster) Get(_ context.Context, r kube.Resource, ns, name string, into any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("get %s %s/%s", r.Plural, ns, name); err != nil {
		return err
	}
	switch out := into.(type) {
	case *dws.Workflow:
		if name != c.workflow.Name {
			return errMissing
		}
		*out = *c.workflow
	case *dws.SystemConfiguration:
		*out = *c.system
	case *dws.ClientMount:
		for _, cm := range c.mounts {
			if cm.Namespace == ns && cm.Name == name {
				*out = *cm
				return nil
			}
		}
		return errMissing
	case *nnf.DataMovement:
		if dm := c.movements[name]; dm != nil && c.reading != nil {
			c.reading(dm)
		}
		dm := c.movements[name]
		if dm == nil || dm.Namespace != ns {
			return errMissing
		}
		*out = *dm
	}
	return nil
}

func (c *cluster) Create(_ context.Context, r kube.Resource, ns string, obj, into any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("create %s %s", r.Plural, ns); err != nil {
		return err
	}
	dm := *obj.(*nnf.DataMovement)
	if dm.Name == "" {
		dm.Name = dm.GenerateName + strconv.Itoa(c.uids+1)
	}
	if c.movements[dm.Name] != nil {
		return apiError(http.StatusConflict, metav1.StatusReasonAlreadyExists)
	}
	c.uids++
	dm.UID = types.UID("uid-" + strconv.Itoa(c.uids) + "-" + dm.Name)
	c.put(&dm)
	*into.(*nnf.DataMovement) = dm
	if c.onCreate != nil {
		c.onCreate()
	}
	return nil
}

// put stores a movement. The caller holds mu.
func (c *cluster) put(dm *nnf.DataMovement) {
	c.version++
	dm.ResourceVersion = strconv.Itoa(c.version)
	c.movements[dm.Name] = dm
	c.notify(dm.Namespace, func(h kube.Handler[nnf.DataMovement]) { h.Upsert(dm) })
}

func (c *cluster) notify(ns string, f func(kube.Handler[nnf.DataMovement])) {
	for w, at := range c.watches {
		if at == ns {
			w <- f
		}
	}
}

// started returns a movement of job7 that was started before this daemon.
func started(name string, uid int64) *nnf.DataMovement {
	dm := &nnf.DataMovement{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: rabbit, Labels: map[string]string{
		api.LabelInitiator: node, api.LabelOwnerKind: "Workflow", api.LabelOwnerName: "job7", api.LabelOwnerNamespace: "default", api.LabelOwnerUID: "wf-uid",
		api.LabelWorkflowName: "job7", api.LabelWorkflowNamespace: "default", api.LabelWorkflowUID: "wf-uid",
	}}}
	dm.Spec.UserID = uid
	return dm
}

// drop deletes a movement without an event.
func (c *cluster) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.movements, name)
}

// set changes a movement like the rabbit.
func (c *cluster) set(name string, change func(*nnf.DataMovement)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	dm := *c.movements[name]
	change(&dm)
	c.put(&dm)
}

func running(dm *nnf.DataMovement) {
	dm.Status.State, dm.Status.StartTime = nnf.MovementRunning, nnf.NewMicroTime(time.Now())
}

func finished(result string) func(*nnf.DataMovement) {
	return func(dm *nnf.DataMovement) {
		dm.Status.State, dm.Status.Status = nnf.MovementFinished, result
	}
}

func (c *cluster) Patch(_ context.Context, r kube.Resource, ns, name, _ string, _ types.PatchType, body []byte, into any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("patch %s %s/%s", r.Plural, ns, name); err != nil {
		return err
	}
	if c.movements[name] == nil {
		return errMissing
	}
	dm := *c.movements[name]
	if err := json.Unmarshal(body, &dm); err != nil {
		return err
	}
	c.put(&dm)
	*into.(*nnf.DataMovement) = dm
	return nil
}

func (c *cluster) Delete(_ context.Context, r kube.Resource, ns, name string, uid types.UID) error {
	if c.deleting != nil {
		c.deleting()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.request("delete %s %s/%s", r.Plural, ns, name); err != nil {
		return err
	}
	if c.movements[name] == nil {
		return errMissing
	}
	if c.movements[name].UID != uid {
		return apiError(http.StatusConflict, metav1.StatusReasonConflict)
	}
	delete(c.movements, name)
	c.notify(ns, func(h kube.Handler[nnf.DataMovement]) { h.Delete(ns, name) })
	return nil
}

func (c *cluster) List(_ context.Context, r kube.Resource, ns, selector string, fromCache bool, into any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch out := into.(type) {
	case *[]*dws.ClientMount:
		all := c.mounts
		if fromCache && c.cached != nil {
			all = c.cached
		}
		for _, cm := range all {
			if (ns == "" || cm.Namespace == ns) && selected(cm.Labels, selector) {
				*out = append(*out, cm)
			}
		}
		if fromCache {
			return c.request("list %s %s at hand", r.Plural, ns)
		}
		return c.request("list %s %s", r.Plural, ns)
	case *[]*lus.LustreFileSystem:
		for _, root := range c.systems {
			*out = append(*out, &lus.LustreFileSystem{ObjectMeta: metav1.ObjectMeta{Name: "global", Namespace: "default"}, Spec: lus.LustreFileSystemSpec{MountRoot: root}})
		}
		return c.request("list lustrefilesystems")
	case *[]*nnf.DataMovementProfile:
		*out = c.profiles
		return c.request("list profiles")
	case *[]*nnf.DataMovement:
		for _, dm := range c.movements {
			if (ns == "" || dm.Namespace == ns) && selected(dm.Labels, selector) {
				*out = append(*out, dm)
			}
		}
		if ns != "" {
			return c.request("list %s movements", ns)
		}
		return c.request("list movements")
	}
	return fmt.Errorf("no lists of %s", r.Kind)
}

func profile(name string, byDefault bool) *nnf.DataMovementProfile {
	return &nnf.DataMovementProfile{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: nnf.DataMovementProfileData{Default: byDefault, Command: "mpirun dcp $SRC $DEST"}}
}

func selected(labels map[string]string, selector string) bool {
	for part := range strings.SplitSeq(selector, ",") {
		if k, v, _ := strings.Cut(part, "="); labels[k] != v {
			return false
		}
	}
	return true
}

func (c *cluster) Watch(ctx context.Context, _ kube.Resource, ns string, o kube.WatchOptions, h kube.Handler[nnf.DataMovement]) error {
	c.mu.Lock()
	if err := c.request("watch %s %s", ns, o.Selector); err != nil {
		c.mu.Unlock()
		return err
	}
	events := make(chan func(kube.Handler[nnf.DataMovement]), 1000)
	over := c.over
	c.watches[events] = ns
	var items []*nnf.DataMovement
	for _, dm := range c.movements {
		if dm.Namespace == ns {
			items = append(items, dm)
		}
	}
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.watches, events)
		c.mu.Unlock()
	}()
	h.Replace(items)
	for {
		select {
		case f := <-events:
			f(h)
		case <-over:
			o.OnState(kube.State{LastError: errors.New("the watch broke")})
			return errors.New("the watch broke")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// endWatches breaks those that run.
func (c *cluster) endWatches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.over)
	c.over = make(chan struct{})
}

func (c *cluster) watching() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.watches)
}
