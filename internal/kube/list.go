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
	// pageSize is the maximum number of objects in one response to a list. A server that
	// responds from its cache (resourceVersion 0) may send all objects in one response.
	pageSize = 500
	// maxList bounds all pages of a list together, in bytes.
	maxList = 8 * maxAnswer
	// maxExpired is how often a list restarts because the server has dropped the state of
	// its first pages.
	maxExpired = 3
)

// rawList is a list whose items are decoded one by one, so that one invalid object does
// not make the list unusable.
type rawList struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []stdjson.RawMessage `json:"items"`
}

// list reads a collection page by page. resourceVersion "" requests the newest state, "0"
// the state in the server's cache, and another value a state that is not older. All pages
// are of the same state: if the server has dropped that state (410 Gone), the list
// restarts, because pages of two states may lack an object that existed all the time. If
// a page exceeds the size limit of a response, list requests smaller pages.
func (c *Client) list(ctx context.Context, what op, resourceVersion, selector string, retries int) (*rawList, error) {
	all, token, size, expired, held := new(rawList), "", pageSize, 0, 0
	for {
		p, err := c.page(ctx, what, pageOptions{resourceVersion, selector, token, size}, retries)
		switch {
		case errors.Is(err, errAnswerTooBig) && resourceVersion == "0" && token == "":
			resourceVersion = "" // a server ignores the page size when it responds from its cache
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
			return nil, fmt.Errorf("%s: the API server sent the same page of the list twice", what)
		}
		token = p.Metadata.Continue
	}
}

type pageOptions struct {
	resourceVersion, selector string
	token                     string // from the previous page; empty: the first page
	size                      int
}

// page reads one page of a collection.
func (c *Client) page(ctx context.Context, what op, o pageOptions, retries int) (*rawList, error) {
	path, err := what.path()
	if err != nil {
		return nil, err
	}
	req := c.rest.Get().AbsPath(path).MaxRetries(retries)
	// A server that responds from its cache ignores the page size. A server whose cache is
	// not filled yet would read from etcd because of it, while all nodes send their
	// requests at the same time after a start of the server.
	if o.token != "" || o.resourceVersion != "0" {
		req.Param("limit", strconv.Itoa(o.size))
	}
	switch {
	case o.token != "": // the token also determines the state
		req.Param("continue", o.token)
	case o.resourceVersion == "0":
		req.Param("resourceVersion", o.resourceVersion)
	case o.resourceVersion != "":
		// With a limit and without this, the server returns exactly this version.
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
// that match a label selector. It is a consistent read. It logs and skips objects that
// cannot be decoded.
func List[T any, P Object[T]](ctx context.Context, c *Client, r Resource, ns, selector string) ([]*T, error) {
	return listFrom[T, P](ctx, c, r, ns, selector, "")
}

// ListCached is like List, but returns the state in the server's cache, which may be
// stale. The request costs the server little and does not wait, while a consistent read
// waits for the cache, up to 100 ms after a write.
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
