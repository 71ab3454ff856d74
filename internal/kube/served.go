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

// Served returns the first of the known versions of an API group that the
// server serves; one request. When there is none the error wraps ErrNotServed
// and names what each side knows.
func (c *Client) Served(ctx context.Context, group string, known []string) (string, error) {
	what := op{verb: "discover", r: Resource{Group: group, Kind: group}}
	ours := strings.Join(known, ", ")
	var g metav1.APIGroup
	err := c.send(ctx, what, c.rest.Get().AbsPath("/apis", group).MaxRetries(maxRetries), &g)
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%w: API server %s does not serve %s at all, needed is one of %s; are its CRDs installed?", ErrNotServed, c.host, group, ours)
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
	return "", fmt.Errorf("%w: API server %s serves %s as %s, this program knows %s; update the older side",
		ErrNotServed, c.host, group, clip(strings.Join(theirs, ", ")), ours)
}

// Versions remembers which version of each API group the server serves. The zero
// value knows none. It is safe for concurrent use.
type Versions struct {
	mu    sync.Mutex
	found map[string]string // by group
}

// Use calls f with the version of the group, which discover finds when it is not
// known. If the error of f is ErrVersionGone, discover is called with again, and f a
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

// Forget has the version of the group found again when it is next needed.
func (v *Versions) Forget(group string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.found, group)
}
