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

// Versions stores which version of each API group the server serves. The zero value is
// empty. It is safe for concurrent use.
type Versions struct {
	mu    sync.Mutex
	found map[string]string // by group
}

// Use calls f with the version of the group. It calls discover if the version is not
// known. If the error of f is ErrVersionGone, it calls discover with again set, and f a
// second time.
func (v *Versions) Use(group string, discover func(again bool) (string, error), f func(version string) error) error {
	for again := false; ; again = true {
		version, err := v.version(group, func() (string, error) { return discover(again) })
		if err != nil {
			return err
		}
		if err = f(version); again || !errors.Is(err, ErrVersionGone) {
			return err
		}
		v.Forget(group)
	}
}

func (v *Versions) version(group string, discover func() (string, error)) (string, error) {
	v.mu.Lock()
	version := v.found[group]
	v.mu.Unlock()
	if version != "" {
		return version, nil
	}
	version, err := discover()
	if err != nil {
		return "", err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.found == nil {
		v.found = map[string]string{}
	}
	v.found[group] = version
	return version, nil
}

// Forget drops the version of the group, so that the next Use calls discover.
func (v *Versions) Forget(group string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.found, group)
}
