package kube

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Served returns the first of the known versions of an API group that the server serves.
// It sends one request. Otherwise the error wraps ErrNotServed and lists the
// versions of both sides.
func (c *Client) Served(ctx context.Context, group string, known []string) (string, error) {
	what := op{verb: "discover", r: Resource{Group: group, Kind: group}}
	ours := strings.Join(known, ", ")
	var g metav1.APIGroup
	err := c.send(ctx, what, c.rest.Get().AbsPath("/apis", group).MaxRetries(maxRetries), &g)
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%w: API server %s does not serve %s, expected one of the versions %s; check that its CRDs are installed", ErrNotServed, c.host, group, ours)
	case err != nil:
		return "", err
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
	return "", fmt.Errorf("%w: API server %s serves %s in %s, this program supports %s; update the older one",
		ErrNotServed, c.host, group, clip(strings.Join(theirs, ", ")), ours)
}

// Versions stores the versions of API groups that were found on the server. The zero value
// is empty. It is safe for concurrent use.
type Versions struct {
	mu    sync.Mutex
	found map[string]string // by group
}

// Use calls f with the version of the group that was found, or else with the newest known
// one, which most servers serve: known is in order of preference. Only if the error of f is
// ErrVersionGone, it calls discover, and f a second time. again is set if the version that
// was found is no longer served.
func (v *Versions) Use(group string, known []string, discover func(again bool) (string, error), f func(version string) error) error {
	v.mu.Lock()
	version, again := v.found[group]
	v.mu.Unlock()
	if !again {
		version = known[0]
	}
	if err := f(version); !errors.Is(err, ErrVersionGone) {
		return err
	}
	v.Forget(group)
	version, err := discover(again)
	if err != nil {
		return err
	}
	v.mu.Lock()
	if v.found == nil {
		v.found = map[string]string{}
	}
	v.found[group] = version
	v.mu.Unlock()
	return f(version)
}

// Forget drops the version of the group, so that the next Use starts with the newest known one.
func (v *Versions) Forget(group string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.found, group)
}
