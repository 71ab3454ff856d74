package kube

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"
)

// Served returns the first of the known versions of an API group that the
// server serves; one request. When there is none the error wraps ErrNotServed
// and names what each side knows.
func (c *Client) Served(ctx context.Context, group string, known []string) (string, error) {
	what := op{verb: "discover", r: Resource{Group: group, Kind: group}}
	ctx, err := c.admit(ctx)
	if err != nil {
		return "", c.explain(ctx, what, err)
	}
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	res := c.rest.Get().AbsPath("/apis", group).MaxRetries(maxRetries).Do(ctx)
	ours := strings.Join(known, ", ")
	if err := res.Error(); err != nil {
		if apierrors.IsNotFound(err) {
			return "", fmt.Errorf("%w: API server %s does not serve %s at all, needed is one of %s; are its CRDs installed?", ErrNotServed, c.host, group, ours)
		}
		return "", c.explain(ctx, what, err)
	}
	var g metav1.APIGroup
	data, err := res.Raw()
	if err == nil {
		err = json.Unmarshal(data, &g)
	}
	if err != nil {
		return "", fmt.Errorf("%s: the API server's answer cannot be read: %w", what, err)
	}
	var theirs []string
	for _, v := range g.Versions {
		theirs = append(theirs, v.Version)
	}
	for _, v := range known {
		if slices.Contains(theirs, v) {
			return v, nil
		}
	}
	return "", fmt.Errorf("%w: API server %s serves %s as %s, this program knows %s; update the older side",
		ErrNotServed, c.host, group, clip(strings.Join(theirs, ", ")), ours)
}
