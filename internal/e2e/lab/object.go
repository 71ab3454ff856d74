package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Object is a Kubernetes object as JSON.
type Object map[string]any

func asObject(v any) Object {
	switch v := v.(type) {
	case Object:
		return v
	case map[string]any:
		return v
	}
	return nil
}

// At returns the value at a path of field names and list indices, or nil.
func (o Object) At(path ...any) any {
	var v any = o
	for _, p := range path {
		switch p := p.(type) {
		case string:
			v = asObject(v)[p]
		case int:
			list, _ := v.([]any)
			if p >= len(list) {
				return nil
			}
			v = list[p]
		default:
			panic(fmt.Sprintf("invalid path element of type %T", p))
		}
	}
	return v
}

// String returns the string at a path of field names, or "".
func (o Object) String(path ...string) string {
	var v any = o
	for _, p := range path {
		v = asObject(v)[p]
	}
	s, _ := v.(string)
	return s
}

// Name returns metadata.name.
func (o Object) Name() string { return o.String("metadata", "name") }

// Namespace returns metadata.namespace.
func (o Object) Namespace() string { return o.String("metadata", "namespace") }

// Ready reports whether all mounts of a ClientMount have reached the state. It uses
// the rule of the rabbit: it compares the lengths of the lists and checks state and
// ready of each entry, not allReady.
func (o Object) Ready(state string) bool {
	wanted, _ := o.At("spec", "mounts").([]any)
	got, _ := o.At("status", "mounts").([]any)
	if len(got) != len(wanted) || len(got) == 0 {
		return false
	}
	for _, m := range got {
		if o := asObject(m); o.String("state") != state || o["ready"] != true {
			return false
		}
	}
	return true
}

// Severity returns status.error.severity, or "" without an error.
func (o Object) Severity() string { return o.String("status", "error", "severity") }

// DebugMessage returns status.error.debugMessage.
func (o Object) DebugMessage() string { return o.String("status", "error", "debugMessage") }

// WaitFor watches an object until match returns true, and returns it. It survives
// broken connections. With an error it returns the last object.
func (c *Client) WaitFor(ctx context.Context, kind, ns, name string, match func(Object) bool) (Object, error) {
	var last Object
	var err error
	what := fmt.Sprintf("the condition of %s %s/%s", kind, ns, name)
	if end := wait.For(ctx, what, func() (bool, error) { // the server may be down for a moment
		err = c.watchUntil(ctx, kind, ns, name, func(o Object) bool { last = o; return match(o) })
		return err == nil, nil
	}); end != nil {
		return last, fmt.Errorf("%w (last: %v)", end, err)
	}
	return last, nil
}

// WaitStatus is WaitFor for a ClientMount that exists.
func (c *Client) WaitStatus(ctx context.Context, ns, name string, match func(Object) bool) (Object, error) {
	return c.WaitFor(ctx, "ClientMount", ns, name, func(o Object) bool { return o != nil && match(o) })
}

// WaitGone waits until the object does not exist.
func (c *Client) WaitGone(ctx context.Context, kind, ns, name string) error {
	_, err := c.WaitFor(ctx, kind, ns, name, func(o Object) bool { return o == nil })
	return err
}

func (c *Client) watchUntil(ctx context.Context, kind, ns, name string, match func(Object) bool) error {
	query := "?fieldSelector=" + url.QueryEscape("metadata.name="+name)
	list, err := c.Do(ctx, http.MethodGet, Path(kind, ns, "")+query, "", nil)
	if err != nil {
		return err
	}
	var now Object
	if items, _ := list["items"].([]any); len(items) > 0 {
		now = asObject(items[0])
	}
	if match(now) {
		return nil
	}
	return c.stream(ctx, kind, ns, query+"&", list, func(event string, o Object) bool {
		if event == "DELETED" {
			o = nil
		}
		return match(o)
	})
}

// stream calls f for the events after a list, until f returns true.
func (c *Client) stream(ctx context.Context, kind, ns, query string, list Object, f func(event string, o Object) bool) error {
	query += "watch=1&resourceVersion=" + list.String("metadata", "resourceVersion")
	resp, err := c.send(ctx, http.MethodGet, Path(kind, ns, "")+query, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	for events := json.NewDecoder(resp.Body); ; {
		var event Object
		if err := events.Decode(&event); err != nil {
			return err
		}
		o := asObject(event["object"])
		if event.String("type") == "ERROR" {
			return fmt.Errorf("watch: %s", o.String("message"))
		}
		if f(event.String("type"), o) {
			return nil
		}
	}
}

// Follow calls f for each object of a namespace, with the event LISTED, and for each event after that:
// ADDED, MODIFIED or DELETED. It returns when ctx ends or the connection is lost.
func (c *Client) Follow(ctx context.Context, kind, ns string, f func(event string, o Object)) error {
	list, err := c.Do(ctx, http.MethodGet, Path(kind, ns, ""), "", nil)
	if err != nil {
		return err
	}
	items, _ := list["items"].([]any)
	for _, item := range items {
		f("LISTED", asObject(item))
	}
	return c.stream(ctx, kind, ns, "?", list, func(event string, o Object) bool { f(event, o); return false })
}
