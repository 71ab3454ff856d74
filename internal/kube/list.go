package kube

import (
	"context"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// pageSize is how many objects one answer of a list has at most. A server
	// that answers from its cache (resourceVersion 0) may send all at once.
	pageSize = 500
	// maxList bounds all pages of a list together.
	maxList = 8 * maxAnswer
	// maxExpired is how often a list starts from the beginning because the server
	// has dropped the state of which the first pages are.
	maxExpired = 3
)

// rawList is a list whose items are decoded one by one, so that one bad object
// does not hide the others.
type rawList struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []stdjson.RawMessage `json:"items"`
}

// list reads a collection, page by page. resourceVersion "" asks for the newest
// state, "0" for the state in the server's cache, another for a state not older
// than it. All pages are of one state: when the server has dropped that state
// (410 Gone), the list starts from the beginning, for pages of two states may
// lack an object that was there all the time. A page that is larger than an
// answer may be is requested again in smaller parts.
func (c *Client) list(ctx context.Context, what op, resourceVersion, selector string, retries int) (*rawList, error) {
	all, token, size, expired, held := new(rawList), "", pageSize, 0, 0
	for {
		p, err := c.page(ctx, what, pageOptions{resourceVersion, selector, token, size}, retries)
		switch {
		case errors.Is(err, errAnswerTooBig) && resourceVersion == "0" && token == "":
			resourceVersion = "" // a server ignores the size of a page when it answers from its cache
			continue
		case errors.Is(err, errAnswerTooBig) && size > 1:
			size = max(size/4, 1)
			continue
		case err != nil && token != "" && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) && expired < maxExpired:
			all, token, held = new(rawList), "", 0
			expired++
			continue
		case err != nil:
			return nil, err
		}
		for _, item := range p.Items {
			held += len(item)
		}
		if held > maxList {
			return nil, fmt.Errorf("%s: the list is larger than %d MiB", what, maxList>>20)
		}
		all.Items = append(all.Items, p.Items...)
		all.Metadata.ResourceVersion = p.Metadata.ResourceVersion
		if p.Metadata.Continue == "" {
			return all, nil
		}
		if p.Metadata.Continue == token {
			return nil, fmt.Errorf("%s: the API server sends the same part of the list again", what)
		}
		token = p.Metadata.Continue
	}
}

type pageOptions struct {
	resourceVersion, selector string
	token                     string // from the page before; empty: the first page
	size                      int
}

// page reads one page of a collection.
func (c *Client) page(ctx context.Context, what op, o pageOptions, retries int) (*rawList, error) {
	path, err := what.path()
	if err != nil {
		return nil, err
	}
	req := c.rest.Get().AbsPath(path).MaxRetries(retries)
	// A server that answers from its cache ignores the size of a page. One whose
	// cache is not filled yet would read from etcd because of it, and the nodes of
	// a machine all come at once when a server starts.
	if o.token != "" || o.resourceVersion != "0" {
		req.Param("limit", strconv.Itoa(o.size))
	}
	switch {
	case o.token != "": // it names the state as well
		req.Param("continue", o.token)
	case o.resourceVersion == "0":
		req.Param("resourceVersion", o.resourceVersion)
	case o.resourceVersion != "":
		// With a limit and without this the server takes the version for the exact one.
		req.Param("resourceVersion", o.resourceVersion).Param("resourceVersionMatch", string(metav1.ResourceVersionMatchNotOlderThan))
	}
	if o.selector != "" {
		req.Param("labelSelector", o.selector)
	}
	var l rawList
	if err := c.send(ctx, what, req, &l); err != nil {
		return nil, err
	}
	return &l, nil
}

// List returns the objects of a namespace ("" for all), optionally only those
// that match a label selector. It is a consistent read. Objects that cannot be
// decoded are logged and left out.
func List[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector string) ([]*T, error) {
	return listFrom[T, P](ctx, c, r, ns, selector, "")
}

// ListCached is List for the state in the server's cache. It costs the server little
// and is answered at once, while a consistent read waits for the cache, up to 100 ms
// after a write. The state may be out of date, by as much as the cache is behind.
func ListCached[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector string) ([]*T, error) {
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
