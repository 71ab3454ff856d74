package clientmount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// messageLimit bounds status.error.debugMessage, in bytes.
const messageLimit = 4 << 10

// Client is what the controller asks of the API server; *kube.Client is the
// real one. Requests observe the turn in their context (kube.WithTurn).
type Client interface {
	Served(ctx context.Context, group string, known []string) (string, error)
	Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error
	Patch(ctx context.Context, r kube.Resource, namespace, name, subresource string, pt types.PatchType, body []byte, into any) error
	Servers(ctx context.Context, r kube.Resource, selector string) ([]*dws.Servers, error)
}

// remote is the API server as this room sees it: four requests, patches only.
type remote struct {
	client Client
	mounts func() kube.Resource // with the version found by discovery

	// The version of the storage profile is asked for when the first profile
	// is needed, and again when the server stops serving it.
	profileVersion *atomic.Pointer[string]

	profiles *shared[*nnf.StorageProfile]
	versions *shared[string]
}

// meter sums the time that a reconcile waits for the API server.
type meter struct {
	Client
	spent time.Duration
}

func (m *meter) Get(ctx context.Context, r kube.Resource, namespace, name string, into any) error {
	defer m.since(time.Now())
	return m.Client.Get(ctx, r, namespace, name, into)
}

func (m *meter) Patch(ctx context.Context, r kube.Resource, namespace, name, sub string, pt types.PatchType, body []byte, into any) error {
	defer m.since(time.Now())
	return m.Client.Patch(ctx, r, namespace, name, sub, pt, body, into)
}

func (m *meter) Served(ctx context.Context, group string, known []string) (string, error) {
	defer m.since(time.Now())
	return m.Client.Served(ctx, group, known)
}

func (m *meter) since(t time.Time) { m.spent += time.Since(t) }

// profile returns one profile by name, which the caller must not change. Even a
// pinned profile may be corrected by the administrator, so it is read again for
// each attempt. Attempts that start at the same time share one read. With fresh
// they share only a read whose request is sent after the call; without, also one
// that is under way or ended less than shareFor ago.
func (c *remote) profile(ctx context.Context, namespace, name string, fresh bool) (*nnf.StorageProfile, error) {
	return c.profiles.get(ctx, namespace+"/"+name, fresh, func(ctx context.Context) (*nnf.StorageProfile, error) {
		return c.getProfile(ctx, namespace, name)
	})
}

func (c *remote) getProfile(ctx context.Context, namespace, name string) (*nnf.StorageProfile, error) {
	for again := true; ; again = false {
		v, err := c.nnfVersion(ctx, !again)
		if err != nil {
			return nil, err
		}
		res := kube.Resource{Group: api.GroupNNF, Version: v, Plural: "nnfstorageprofiles", Kind: "NnfStorageProfile"}
		p := new(nnf.StorageProfile)
		err = c.client.Get(ctx, res, namespace, name, p)
		if err != nil && again && errors.Is(err, kube.ErrVersionGone) {
			c.profileVersion.Store(nil)
			continue
		}
		if err != nil {
			return nil, err
		}
		return p, nil
	}
}

// finalizerTries bounds how often a finalizer patch follows a list that others
// change at the same time.
const finalizerTries = 4

// nnfVersion is the served version of the nnf group. Attempts share the
// discovery; fresh says that what was found a moment ago is wrong.
func (c *remote) nnfVersion(ctx context.Context, fresh bool) (string, error) {
	if v := c.profileVersion.Load(); v != nil {
		return *v, nil
	}
	found, err := c.versions.get(ctx, api.GroupNNF, fresh, func(ctx context.Context) (string, error) {
		return c.client.Served(ctx, api.GroupNNF, api.VersionsNNF)
	})
	if err != nil {
		return "", err
	}
	c.profileVersion.Store(&found)
	return found, nil
}

// addFinalizer puts our finalizer on the object. A JSON patch that tests the
// list we saw cannot drop somebody else's finalizer and is not disturbed by
// unrelated changes.
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

// removeFinalizer takes exactly our finalizer off the list.
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

// patchFinalizers sends ops; no ops means that there is nothing to do. When
// the list changed since we saw it, it is read again. An object that is gone
// needs no finalizer any more.
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
		failpoint("finalizers/write")
		err = c.client.Patch(ctx, c.mounts(), cm.Namespace, cm.Name, "", types.JSONPatchType, body, out)
		if err == nil {
			failpoint("finalizers/written")
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

// patchStatus writes the whole status as a merge patch on the subresource: no
// resource version, so no conflicts, and fields of newer schemas survive.
func (c *remote) patchStatus(ctx context.Context, cm *dws.ClientMount, s *dws.ClientMountStatus) error {
	status := map[string]any{"mounts": s.Mounts, "allReady": s.AllReady, "error": nil}
	if s.Error != nil {
		status["error"] = s.Error
	}
	// The uid makes the server refuse when the object was replaced meanwhile.
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
	failpoint("status/write")
	err = c.client.Patch(ctx, c.mounts(), cm.Namespace, cm.Name, "status", types.MergePatchType, body, new(dws.ClientMount))
	if err == nil {
		failpoint("status/written")
	}
	return err
}

func hasFinalizer(o metav1.Object) bool {
	return slices.Contains(o.GetFinalizers(), api.FinalizerClientMount)
}

// shorten keeps the head and the tail of a long message; commands say what is
// wrong at either end.
func shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const gap = " … (shortened) … "
	head, tail := limit*2/3, limit-limit*2/3-len(gap)
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	from := len(s) - tail
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return s[:head] + gap + s[from:]
}
