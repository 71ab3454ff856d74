package kube

import (
	"context"
	stdjson "encoding/json"
	"fmt"

	"k8s.io/apimachinery/pkg/util/json"
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

// list reads a collection. resourceVersion "" asks for the newest state, "0"
// for whatever the server has at hand, another for a state not older than it.
func (c *Client) list(ctx context.Context, what op, resourceVersion, selector string, retries int) (*rawList, error) {
	path, err := what.path()
	if err != nil {
		return nil, err
	}
	if ctx, err = c.admit(ctx); err != nil {
		return nil, c.explain(ctx, what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	req := c.rest.Get().AbsPath(path).MaxRetries(retries)
	if resourceVersion != "" {
		req.Param("resourceVersion", resourceVersion)
	}
	if selector != "" {
		req.Param("labelSelector", selector)
	}
	res := req.Do(ctx)
	if err := res.Error(); err != nil {
		return nil, c.explain(ctx, what, err)
	}
	data, err := res.Raw()
	if err != nil {
		return nil, c.explain(ctx, what, err)
	}
	var l rawList
	if err := json.Unmarshal(data, &l); err != nil {
		return nil, fmt.Errorf("%s: the API server's answer cannot be read: %w", what, err)
	}
	if l.Metadata.Continue != "" {
		// We set no limit; a partial list taken for a whole one would make
		// the rest look deleted.
		return nil, fmt.Errorf("%s: the API server sent a part of the list only", what)
	}
	return &l, nil
}
