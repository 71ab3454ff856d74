package api

import "strings"

// Rule lists the verbs that the role of a daemon grants on a resource of a group. Resource
// can have a subresource after a slash. The daemon needs the verbs in Used; those in Other
// are in the role for older versions.
//
// The account that all nodes share has these verbs in all namespaces. An account of one node
// has only those in Used, and only in the namespaces of Scope. Reason tells why it needs them
// in all namespaces.
type Rule struct {
	Group, Resource, Used, Other string

	Scope  Scope
	Reason string
}

// Scope is a set of namespaces, which depends on the node.
type Scope int

// The scopes.
const (
	ScopeNone      Scope = iota // of rules that are for older versions only
	ScopeNode                   // the namespace of the node
	ScopeMovements              // that of the node's rabbit, and that of the data movements of Lustre
	ScopeSystem                 // that of the SystemConfiguration
	ScopeProfiles               // that of the profiles for data movements
	ScopeAll                    // all namespaces
)

// The rules of the roles in packaging/manifests.
var (
	RulesClientmountd = []Rule{
		{GroupDWS, "clientmounts", "get list patch watch", "update", ScopeNode, ""},
		{GroupDWS, "clientmounts/finalizers", "", "update", ScopeNone, ""},
		{GroupDWS, "clientmounts/status", "patch", "get update", ScopeNode, ""},
		{GroupNNF, "nnfstorageprofiles", "get", "list watch", ScopeAll,
			"A ClientMount names the profile by name and namespace. It is in the namespace of the job's workflow, which the workload manager chooses"},
	}
	RulesDataMovement = []Rule{
		{GroupLUS, "lustrefilesystems", "list", "get watch", ScopeAll,
			"The administrator chooses the namespaces of the global file systems, and the path of a request belongs to any of them"},
		{GroupDWS, "workflows", "get", "list", ScopeAll,
			"A request names the workflow by name and namespace, which the workload manager chooses. Only single workflows can be read, by name"},
		{GroupDWS, "clientmounts", "get list", "", ScopeAll,
			"The mount of a Lustre file system can be on any rabbit; nnf-dm looks there if the node's own rabbit does not have it"},
		{GroupDWS, "clientmounts/status", "", "get list", ScopeNone, ""},
		{GroupDWS, "systemconfigurations", "get", "list watch", ScopeSystem, ""},
		{GroupNNF, "nnfdatamovements", "create delete get list patch watch", "update", ScopeMovements, ""},
		{GroupNNF, "nnfdatamovementprofiles", "list", "get watch", ScopeProfiles, ""},
		{GroupNNF, "nnfdatamovements/finalizers", "", "update", ScopeNone, ""},
		{GroupNNF, "nnfdatamovements/status", "", "get patch update", ScopeNone, ""},
	}
)

// ServiceAccountPrefix is the start of the user names of all service accounts.
const ServiceAccountPrefix = "system:serviceaccount:"

// ServiceAccount returns the user name of a service account at the API server.
func ServiceAccount(namespace, name string) string {
	return ServiceAccountPrefix + namespace + ":" + name
}

// Permission is the permission for one verb on one resource.
type Permission struct {
	Verb, Group, Resource, Subresource string
	Namespace                          string // "": all namespaces
	Name                               string // of the object; "": all objects
}

// String returns the permission in the form of "kubectl auth can-i", without the namespace.
func (p Permission) String() string {
	s := p.Verb + " " + p.Resource
	if p.Group != "" {
		s += "." + p.Group
	}
	if p.Subresource != "" {
		s += "/" + p.Subresource
	}
	return s
}

// Permissions returns the permissions of rules in all namespaces: those that the daemon uses, and
// the others.
func Permissions(rules []Rule) (used, other []Permission) {
	for _, r := range rules {
		used, other = append(used, r.permissions(r.Used, "")...), append(other, r.permissions(r.Other, "")...)
	}
	return used, other
}

// Needs returns the permissions of the rule that the daemon uses, in a namespace; "": in all
// namespaces.
func (r Rule) Needs(namespace string) []Permission { return r.permissions(r.Used, namespace) }

func (r Rule) permissions(verbs, namespace string) (all []Permission) {
	resource, sub, _ := strings.Cut(r.Resource, "/")
	for verb := range strings.FieldsSeq(verbs) {
		all = append(all, Permission{Verb: verb, Group: r.Group, Resource: resource, Subresource: sub, Namespace: namespace})
	}
	return all
}
