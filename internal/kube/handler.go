package kube

import (
	"context"
	stdjson "encoding/json"
	"fmt"
	"log/slog"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// Object is a pointer to a Kubernetes object of type T.
type Object[T any] interface {
	*T
	metav1.Object
}

// Handler is told what a watch sees. All calls come from the goroutine of
// Watch, one after another; they must not block for long. Any may be nil.
type Handler[T any] struct {
	// Replace gives all objects: at the start, and when the position in the
	// server's history was lost. Objects that are missing were deleted, but
	// for those reported by Malformed just before.
	Replace func(items []*T)
	// Upsert gives an object that is new or has changed.
	Upsert func(obj *T)
	// Delete names an object that is gone.
	Delete func(namespace, name string)
	// Malformed names an object that exists but cannot be decoded, so that
	// nothing may be done for it. The caller's older copy, if any, is stale.
	Malformed func(namespace, name string, err error)
}

// sink is what the watch loop, which knows no types, feeds.
type sink interface {
	replace(items []stdjson.RawMessage)
	upsert(raw []byte) (resourceVersion string, err error)
	remove(namespace, name string)
}

// typed decodes for a Handler.
type typed[T any, P Object[T]] struct {
	h    Handler[T]
	log  *slog.Logger
	kind string
}

func (t *typed[T, P]) replace(items []stdjson.RawMessage) {
	out := make([]*T, 0, len(items))
	for _, raw := range items {
		// An item without even a name is reported and left out.
		if obj, _, _ := t.decode(raw); obj != nil {
			out = append(out, obj)
		}
	}
	if t.h.Replace != nil {
		t.h.Replace(out)
	}
}

func (t *typed[T, P]) upsert(raw []byte) (string, error) {
	obj, rv, err := t.decode(raw)
	if obj != nil && t.h.Upsert != nil {
		t.h.Upsert(obj)
	}
	return rv, err
}

func (t *typed[T, P]) remove(namespace, name string) {
	if t.h.Delete != nil {
		t.h.Delete(namespace, name)
	}
}

// decode returns nil for an object that cannot be used, after saying so; err
// only when not even its name and version can be told.
func (t *typed[T, P]) decode(raw []byte) (*T, string, error) {
	obj := new(T)
	p := P(obj)
	err := json.Unmarshal(raw, obj)
	if err == nil && p.GetName() != "" {
		p.SetManagedFields(nil)
		return obj, p.GetResourceVersion(), nil
	}
	h, herr := headerOf(raw)
	m := h.Metadata
	if herr == nil && (m.Name == "" || err == nil) {
		herr = fmt.Errorf("%w: %s without a name", errBadFrame, t.kind)
	}
	if herr != nil {
		t.log.Warn("an object of the API server has no readable name, it is ignored", "kind", t.kind, "error", clip(herr.Error()))
		return nil, "", herr
	}
	err = fmt.Errorf("%s %q cannot be decoded: %s", t.kind, m.Namespace+"/"+m.Name, clip(err.Error()))
	t.log.Warn("an object cannot be decoded, nothing is done for it", "kind", t.kind,
		"namespace", m.Namespace, "name", m.Name, "error", err)
	if t.h.Malformed != nil {
		t.h.Malformed(m.Namespace, m.Name, err)
	}
	return nil, m.ResourceVersion, nil
}

// List returns the objects of a namespace ("" for all), optionally only those
// that match a label selector. It is a consistent read. Objects that cannot be
// decoded are logged and left out.
func List[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector string) ([]*T, error) {
	return listFrom[T, P](ctx, c, r, ns, selector, "")
}

// ListAtHand is List for a state that the server has at hand: it costs the server
// little and is answered at once, while a consistent read waits for the server's
// cache, up to 100 ms after a write. The state may be out of date, by as much as
// the server's cache is behind.
func ListAtHand[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector string) ([]*T, error) {
	return listFrom[T, P](ctx, c, r, ns, selector, "0")
}

func listFrom[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector, resourceVersion string) ([]*T, error) {
	var out []*T
	t := &typed[T, P]{log: c.o.Log, kind: r.Kind, h: Handler[T]{Replace: func(items []*T) { out = items }}}
	l, err := c.list(ctx, op{verb: "list", r: r, ns: ns}, resourceVersion, selector, maxRetries)
	if err != nil {
		return nil, err
	}
	t.replace(l.Items)
	return out, nil
}
