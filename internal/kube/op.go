package kube

import (
	"fmt"
	"strings"

	"k8s.io/client-go/rest"
)

// op is one request, as messages name it and as the server wants it.
type op struct {
	verb     string
	r        Resource
	ns, name string
	named    bool // about one object, not the collection
	sub      string
}

// path returns the request's path. Names come from labels of objects that
// others write, so anything that could leave its segment is refused.
func (o op) path() (string, error) {
	segments := []string{"apis", o.r.Group, o.r.Version}
	if o.r.Group == "" {
		segments = []string{"api", o.r.Version}
	}
	if o.ns != "" {
		segments = append(segments, "namespaces", o.ns)
	}
	segments = append(segments, o.r.Plural)
	if o.named {
		segments = append(segments, o.name)
	}
	if o.sub != "" {
		segments = append(segments, o.sub)
	}
	for _, s := range segments {
		if bad := rest.IsValidPathSegmentName(s); s == "" || len(bad) > 0 || strings.ContainsAny(s, "?#\\") || printable(s) != s {
			return "", fmt.Errorf("%s: %q is not a name that an object, namespace or resource can have", o, s)
		}
	}
	return "/" + strings.Join(segments, "/"), nil
}

// resource returns "clientmounts.dataworkflowservices.github.io/status", the
// form that RBAC rules and kubectl auth can-i use.
func (o op) resource() string {
	s := o.r.Plural
	if o.r.Group != "" {
		s += "." + o.r.Group
	}
	if o.sub != "" {
		s += "/" + o.sub
	}
	return s
}

// String returns "get ClientMount rabbit1/job7".
func (o op) String() string {
	what := o.r.Kind
	if o.sub != "" {
		what += " " + o.sub
	}
	switch {
	case o.name != "" && o.ns != "":
		return fmt.Sprintf("%s %s %q", o.verb, what, o.ns+"/"+o.name)
	case o.name != "":
		return fmt.Sprintf("%s %s %q", o.verb, what, o.name)
	case o.ns != "":
		return fmt.Sprintf("%s %s in namespace %q", o.verb, what, o.ns)
	}
	return o.verb + " " + what
}
