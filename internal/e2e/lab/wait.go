package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"
)

// WaitFor returns the object as soon as it fits, by a watch. Connections may
// break meanwhile. The last object seen comes with the error.
func (c *Client) WaitFor(ctx context.Context, kind, ns, name string, fits func(Object) bool) (Object, error) {
	var last Object
	for {
		o, err := c.watchUntil(ctx, kind, ns, name, func(o Object) bool { last = o; return fits(o) })
		if err == nil {
			return o, nil
		}
		select {
		case <-time.After(100 * time.Millisecond): // the server may just be down
		case <-ctx.Done():
			return last, fmt.Errorf("%s %s/%s did not become as wanted: %w (last: %v)", kind, ns, name, ctx.Err(), err)
		}
	}
}

// WaitStatus waits for a ClientMount.
func (c *Client) WaitStatus(ctx context.Context, ns, name string, fits func(Object) bool) (Object, error) {
	return c.WaitFor(ctx, "ClientMount", ns, name, func(o Object) bool { return o != nil && fits(o) })
}

// WaitGone waits until there is no such object.
func (c *Client) WaitGone(ctx context.Context, kind, ns, name string) error {
	_, err := c.WaitFor(ctx, kind, ns, name, func(o Object) bool { return o == nil })
	return err
}

func (c *Client) watchUntil(ctx context.Context, kind, ns, name string, fits func(Object) bool) (Object, error) {
	query := "?fieldSelector=" + url.QueryEscape("metadata.name="+name)
	list, err := c.Do(ctx, http.MethodGet, Path(kind, ns, "")+query, "", nil)
	if err != nil {
		return nil, err
	}
	var now Object
	if items, _ := list["items"].([]any); len(items) > 0 {
		now = asObject(items[0])
	}
	if fits(now) {
		return now, nil
	}
	query += "&watch=1&resourceVersion=" + list.String("metadata", "resourceVersion")
	resp, err := c.send(ctx, http.MethodGet, Path(kind, ns, "")+query, "", nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	for events := json.NewDecoder(resp.Body); ; {
		var event Object
		if err := events.Decode(&event); err != nil {
			return nil, err
		}
		o := asObject(event["object"])
		switch event.String("type") {
		case "DELETED":
			o = nil
		case "ERROR":
			return nil, fmt.Errorf("watch: %s", o.String("message"))
		}
		if fits(o) {
			return o, nil
		}
	}
}
