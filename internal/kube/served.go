package kube

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Served returns the first of the known versions in which the server serves the resource; the
// version of r is ignored. A version of a group may lack resources that other versions have, so
// Served requests the resources of each known version until one has it: one request if the server
// serves the first version. If no version has it, the error wraps ErrNotServed and lists the
// versions of both sides.
func (c *Client) Served(ctx context.Context, r Resource, known []string) (string, error) {
	what := op{verb: "discover", r: Resource{Group: r.Group, Plural: r.Plural, Kind: r.Plural + "." + r.Group}}
	group := "/apis/" + r.Group
	for _, version := range known {
		var list metav1.APIResourceList
		err := c.send(ctx, what, c.rest.Get().AbsPath(group, version).MaxRetries(maxRetries), &list)
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
		if slices.ContainsFunc(list.APIResources, func(a metav1.APIResource) bool { return a.Name == r.Plural }) {
			return version, nil
		}
	}
	ours := strings.Join(known, ", ")
	var g metav1.APIGroup
	err := c.send(ctx, what, c.rest.Get().AbsPath(group).MaxRetries(maxRetries), &g)
	switch {
	case apierrors.IsNotFound(err):
		return "", fmt.Errorf("%w: API server %s does not serve %s, expected one of the versions %s; check that its CRDs are installed", ErrNotServed, c.host, r.Group, ours)
	case err != nil:
		return "", err
	}
	var theirs []string
	for _, v := range g.Versions {
		theirs = append(theirs, v.Version)
	}
	if slices.ContainsFunc(known, func(v string) bool { return slices.Contains(theirs, v) }) {
		return "", fmt.Errorf("%w: API server %s serves %s in %s, but %s in none of the versions %s; check that the CRD of %s is installed",
			ErrNotServed, c.host, r.Group, clip(strings.Join(theirs, ", ")), r.Plural, ours, r.Plural)
	}
	return "", fmt.Errorf("%w: API server %s serves %s in %s, this program supports %s; update the older one",
		ErrNotServed, c.host, r.Group, clip(strings.Join(theirs, ", ")), ours)
}

// Versions stores the versions of resources that were found on the server. The zero value is
// empty. It is safe for concurrent use.
type Versions struct {
	mu     sync.Mutex
	found  map[Resource]string // by group and plural
	groups map[string]string   // by group: the version of the resource that was found last
}

// Use calls f with r in the version that was found. Before the first one, it uses the version of
// another resource of the group, which is usually the same, or else the newest known one, which
// most servers serve: known is in order of preference. Only if the error of f is ErrVersionGone, it
// calls discover, and f a second time. again is set if the version that was found is no longer
// served.
func (v *Versions) Use(r Resource, known []string, discover func(again bool) (string, error), f func(Resource) error) error {
	key := keyOf(r)
	v.mu.Lock()
	version, again := v.found[key]
	if !again {
		version = cmp.Or(v.groups[r.Group], known[0])
	}
	v.mu.Unlock()
	r.Version = version
	if err := f(r); !errors.Is(err, ErrVersionGone) {
		return err
	}
	v.Forget(r)
	version, err := discover(again)
	if err != nil {
		return err
	}
	v.mu.Lock()
	if v.found == nil {
		v.found, v.groups = map[Resource]string{}, map[string]string{}
	}
	v.found[key], v.groups[r.Group] = version, version
	v.mu.Unlock()
	r.Version = version
	return f(r)
}

// Forget drops the version of the resource, so that the next Use starts with the newest known one.
func (v *Versions) Forget(r Resource) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.found, keyOf(r))
	delete(v.groups, r.Group)
}

func keyOf(r Resource) Resource { return Resource{Group: r.Group, Plural: r.Plural} }
