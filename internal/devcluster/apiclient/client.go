// Package apiclient applies, gets, patches and deletes objects of any kind and waits
// for them, so that tests and demos do not need kubectl.
//
// It must not know any particular kind.
package apiclient

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// Client talks to one cluster with one identity.
type Client struct {
	objects dynamic.Interface
	mapper  meta.ResettableRESTMapper
}

// New returns a client. It does not connect.
func New(config *rest.Config) (*Client, error) {
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	groups, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &Client{objects, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(groups))}, nil
}

// Target identifies an object. Namespace is empty for cluster-scoped resources.
type Target struct {
	Resource  string // "clientmounts", "clientmount", or with version and group: "clientmounts.v1alpha6.dataworkflowservices.github.io"
	Namespace string
	Name      string
}

// ParseTarget parses RESOURCE and [NAMESPACE/]NAME.
func ParseTarget(resource, name string) (Target, error) {
	t := Target{Resource: resource, Name: name}
	if space, rest, ok := strings.Cut(name, "/"); ok {
		t.Namespace, t.Name = space, rest
		if space == "" {
			return t, fmt.Errorf("%q: the namespace before the slash is empty", name)
		}
	}
	if t.Resource == "" || t.Name == "" || strings.Contains(t.Name, "/") {
		return t, fmt.Errorf("%s %q: expected RESOURCE and [NAMESPACE/]NAME", resource, name)
	}
	return t, nil
}

func (t Target) String() string {
	if t.Namespace == "" {
		return t.Resource + " " + t.Name
	}
	return t.Resource + " " + t.Namespace + "/" + t.Name
}

// open returns the REST resource of a target in the requested version or in the
// preferred version of the server.
func (c *Client) open(_ context.Context, t Target) (dynamic.ResourceInterface, error) {
	partial := schema.GroupVersionResource{}
	full, groupResource := schema.ParseResourceArg(t.Resource)
	if full != nil {
		partial = *full
	}
	resource, err := c.mapper.ResourceFor(partial)
	if full == nil || err != nil { // "a.b.c" may also be resource "a" of group "b.c"
		resource, err = c.mapper.ResourceFor(groupResource.WithVersion(""))
	}
	if err != nil {
		return nil, err
	}
	kind, err := c.mapper.KindFor(resource)
	if err != nil {
		return nil, err
	}
	mapping, err := c.mapper.RESTMapping(kind.GroupKind(), kind.Version)
	if err != nil {
		return nil, err
	}
	return c.scoped(mapping, resource, t.Namespace)
}

func (c *Client) scoped(m *meta.RESTMapping, resource schema.GroupVersionResource, namespace string) (dynamic.ResourceInterface, error) {
	namespaced := m.Scope.Name() == meta.RESTScopeNameNamespace
	switch {
	case namespaced && namespace == "":
		return nil, fmt.Errorf("%s are namespaced: use NAMESPACE/NAME", resource.Resource)
	case !namespaced && namespace != "":
		return nil, fmt.Errorf("%s are not namespaced: use NAME", resource.Resource)
	case namespaced:
		return c.objects.Resource(resource).Namespace(namespace), nil
	}
	return c.objects.Resource(resource), nil
}
