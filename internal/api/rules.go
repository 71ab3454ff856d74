package api

import "strings"

// Rule lists the verbs that the role of a daemon grants on a resource of a group. Resource
// can have a subresource after a slash. The daemon needs the verbs in Used; those in Other
// are in the role for older versions.
type Rule struct{ Group, Resource, Used, Other string }

// The rules of the roles in packaging/manifests.
var (
	RulesClientmountd = []Rule{
		{GroupDWS, "clientmounts", "get list patch watch", "update"},
		{GroupDWS, "clientmounts/finalizers", "", "update"},
		{GroupDWS, "clientmounts/status", "patch", "get update"},
		{GroupNNF, "nnfstorageprofiles", "get", "list watch"},
	}
	RulesDataMovement = []Rule{
		{GroupLUS, "lustrefilesystems", "list", "get watch"},
		{GroupDWS, "workflows", "get", "list"},
		{GroupDWS, "clientmounts", "list", "get"},
		{GroupDWS, "clientmounts/status", "", "get list"},
		{GroupDWS, "systemconfigurations", "get", "list watch"},
		{GroupNNF, "nnfdatamovements", "create delete get list patch watch", "update"},
		{GroupNNF, "nnfdatamovementprofiles", "list", "get watch"},
		{GroupNNF, "nnfdatamovements/finalizers", "", "update"},
		{GroupNNF, "nnfdatamovements/status", "", "get patch update"},
	}
)

// Permission is the permission for one verb on one resource.
type Permission struct {
	Verb, Group, Resource, Subresource string
	Namespace                          string // "": all namespaces
}

// String returns the permission in the form of "kubectl auth can-i".
func (p Permission) String() string {
	s := p.Verb + " " + p.Resource + "." + p.Group
	if p.Subresource != "" {
		s += "/" + p.Subresource
	}
	return s
}

// Permissions returns the permissions of rules in all namespaces: those that the daemon uses, and
// the others.
func Permissions(rules []Rule) (used, other []Permission) {
	list := func(r Rule, verbs string) (all []Permission) {
		resource, sub, _ := strings.Cut(r.Resource, "/")
		for verb := range strings.FieldsSeq(verbs) {
			all = append(all, Permission{Verb: verb, Group: r.Group, Resource: resource, Subresource: sub})
		}
		return all
	}
	for _, r := range rules {
		used, other = append(used, list(r, r.Used)...), append(other, list(r, r.Other)...)
	}
	return used, other
}
