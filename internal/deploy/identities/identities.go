// Package identities makes the Kubernetes objects that give every compute node accounts of its
// own, so that the credentials of one node cannot be used for another: service accounts, their
// roles and bindings, and admission policies for what roles cannot express.
//
// It must not know how the objects get to the API server, nor how nodes get their tokens.
package identities

import (
	"cmp"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Object is a Kubernetes object, for a server-side apply.
type Object = map[string]any

const (
	GroupRBAC = "rbac.authorization.k8s.io" // of roles and bindings
	prefix    = "compute-daemons-"          // of all names that other programs could use as well

	// Every object has this label.
	labelManager = "app.kubernetes.io/managed-by"
	manager      = "nnf-deploy"
)

// Managed reports whether an object with these labels was created by nnf-deploy.
func Managed(labels map[string]string) bool { return labels[labelManager] == manager }

// Named reports whether an object of this kind may have this name. Only such objects are deleted, even
// if others have the label.
func Named(kind, name string) bool {
	if kind == "ServiceAccount" {
		return slices.ContainsFunc(product.Daemons, func(d product.Daemon) bool { return d.NodeAccount("").Name == name })
	}
	return strings.HasPrefix(name, prefix)
}

// Group is a set of compute nodes with common bindings: those of a rabbit, in its namespace, or a
// block, in the namespaces that all nodes use and in all namespaces.
type Group struct {
	Rabbit string // empty for a block
	Block  string // its name: the number of blocks, and the number of this one
	Nodes  []string
}

// The API server compares the user of a request with each subject of each ClusterRoleBinding, until one
// permits the request, whoever the user is. Fewer and larger bindings take less time; the guide has
// the figures.
const (
	usualBlock   = 400 // nodes, on average at most
	largestBlock = 512 // nodes: 64 KiB with the longest names
	maxBlocks    = 1 << 16
)

// Groups returns the groups of the nodes of a system. The names of nodes have been checked. A node has
// a rabbit, unless it is an external one, and a block.
func Groups(nodes []inventory.Node) (groups []Group, err error) {
	seen := map[string]bool{}
	for _, n := range nodes {
		if n.Rabbit == "" {
			seen[n.Name] = true
		}
	}
	index := map[string]int{}
	for _, n := range nodes {
		i, ok := index[n.Rabbit]
		switch {
		case n.Rabbit == "":
			continue
		case !ok:
			if err := inventory.CheckName(n.Rabbit); err != nil {
				return nil, fmt.Errorf("a rabbit in the SystemConfiguration: %w", err)
			}
			if seen[n.Rabbit] {
				return nil, fmt.Errorf("%q is the name of a rabbit and of an external compute node in the SystemConfiguration", n.Rabbit)
			}
			i = len(groups)
			index[n.Rabbit] = i
			groups = append(groups, Group{Rabbit: n.Rabbit})
		}
		groups[i].Nodes = append(groups[i].Nodes, n.Name)
	}
	blocks, err := blocks(nodes)
	return append(groups, blocks...), err
}

// blocks divides the nodes into blocks by a hash of their names. So a node that joins or leaves changes
// only its own block, and a node that moves to another rabbit none. The number of blocks is a power of
// two. If it changes, the new blocks have other names: the old ones are valid until they are deleted.
func blocks(nodes []inventory.Node) ([]Group, error) {
	count := uint32(1)
	for int(count)*usualBlock < len(nodes) {
		count *= 2
	}
	for ; count <= maxBlocks; count *= 2 {
		list := make([]Group, count)
		largest := 0
		for _, n := range nodes {
			h := fnv.New32a()
			h.Write([]byte(n.Name))
			b := &list[h.Sum32()%count]
			b.Nodes = append(b.Nodes, n.Name)
			largest = max(largest, len(b.Nodes))
		}
		if largest > largestBlock {
			continue
		}
		for i := range list {
			list[i].Block = fmt.Sprintf("%d-%d", count, i)
		}
		return slices.DeleteFunc(list, func(g Group) bool { return len(g.Nodes) == 0 }), nil
	}
	return nil, fmt.Errorf("the names of the %d nodes in the SystemConfiguration cannot be divided into blocks", len(nodes))
}

// All returns the objects for all nodes of a system. Each object only refers to earlier ones, and
// the policies are the first, so that no account has a right before the policies that restrict it.
// An API server uses a new policy when its watch has delivered it, usually within a second.
func All(s inventory.System) ([]Object, error) {
	nodes, err := inventory.Nodes(s)
	if err != nil {
		return nil, err
	}
	groups, err := Groups(nodes)
	if err != nil {
		return nil, err
	}
	all := Shared()
	for _, n := range nodes {
		all = append(all, ForNode(n.Name)...)
	}
	for _, g := range groups {
		all = append(all, ForGroup(g)...)
	}
	return all, nil
}

// Shared returns the objects that exist once, whatever the number of nodes: the policies, and the
// roles. Roles are ClusterRoles, because bindings in many namespaces refer to them; a RoleBinding
// to a ClusterRole grants its rights in the namespace of the binding only.
func Shared() (all []Object) {
	all = append(all, policies()...)
	for _, d := range product.Daemons {
		for _, scope := range scopes {
			if rules := rulesOf(d, scope); len(rules) > 0 {
				o := object(GroupRBAC+"/v1", "ClusterRole", "", roleName(d, scope))
				o["rules"] = rules
				all = append(all, o)
			}
		}
	}
	return all
}

// ForNode returns the accounts of a node, and their bindings in its namespace.
func ForNode(node string) (all []Object) {
	for _, d := range product.Daemons {
		account := d.NodeAccount(node)
		o := object("v1", "ServiceAccount", account.Namespace, account.Name)
		o["automountServiceAccountToken"] = false // no pod uses it
		all = append(all, o, binding(d, api.ScopeNode, node, prefix+d.Name, []string{node}))
	}
	return all
}

// ForGroup returns the bindings of the accounts of a group in other namespaces.
func ForGroup(g Group) (all []Object) {
	for _, d := range product.Daemons {
		for _, scope := range scopes {
			if len(rulesOf(d, scope)) == 0 {
				continue
			}
			for _, namespace := range namespaces(scope, g) {
				all = append(all, binding(d, scope, namespace, prefix+d.Name+"-"+cmp.Or(g.Rabbit, g.Block), g.Nodes))
			}
		}
	}
	return all
}

// scopes are the scopes of roles, with a word for their names.
var scopes = []api.Scope{api.ScopeNode, api.ScopeMovements, api.ScopeSystem, api.ScopeProfiles, api.ScopeAll}

var scopeNames = map[api.Scope]string{
	api.ScopeNode: "node", api.ScopeMovements: "movements", api.ScopeSystem: "system", api.ScopeProfiles: "profiles", api.ScopeAll: "all",
}

// Permissions returns the permissions of a daemon's account on a node: those that it must have, and
// those that it must not have, because the role grants them in some namespaces only.
func Permissions(d product.Daemon, n inventory.Node) (must, not []api.Permission) {
	for _, r := range d.Rules {
		in := namespacesOf(r.Scope, n)
		for _, namespace := range in {
			must = append(must, r.Needs(namespace)...)
		}
		if len(in) > 0 && r.Scope != api.ScopeAll {
			not = append(not, r.Needs("")...)
		}
	}
	own := api.Permission{Verb: "create", Resource: "serviceaccounts", Subresource: "token"} // for the next token
	not = append(not, own)
	own.Namespace, own.Name = n.Name, d.NodeAccount(n.Name).Name
	return append(must, own), not
}

// namespacesOf returns the namespaces of a scope for a node, "" for all namespaces.
func namespacesOf(scope api.Scope, n inventory.Node) []string {
	switch {
	case scope == api.ScopeNode:
		return []string{n.Name}
	case scope == api.ScopeMovements && n.Rabbit == "":
		return []string{nnf.NamespaceDataMovement}
	case scope == api.ScopeMovements:
		return []string{n.Rabbit, nnf.NamespaceDataMovement}
	case scope == api.ScopeSystem:
		return []string{dws.NamespaceSystemConfiguration}
	case scope == api.ScopeProfiles:
		return []string{nnf.NamespaceProfiles}
	case scope == api.ScopeAll:
		return []string{""}
	}
	return nil
}

// namespaces returns the namespaces in which a group has a binding for a scope, "" for all namespaces.
func namespaces(scope api.Scope, g Group) []string {
	switch {
	case g.Rabbit != "" && scope == api.ScopeMovements:
		return []string{g.Rabbit}
	case g.Rabbit != "" || scope == api.ScopeNode:
		return nil
	}
	return namespacesOf(scope, inventory.Node{}) // without those of a rabbit
}

func roleName(d product.Daemon, scope api.Scope) string {
	return prefix + d.Name + "-" + scopeNames[scope]
}

// rulesOf returns the rules of the role of a daemon in a scope.
func rulesOf(d product.Daemon, scope api.Scope) (rules []any) {
	for _, r := range d.Rules {
		if r.Scope == scope && r.Used != "" {
			rules = append(rules, rule(r.Group, r.Resource, strings.Fields(r.Used)...))
		}
	}
	if scope == api.ScopeNode {
		// To request the next token, of exactly this account.
		own := rule("", "serviceaccounts/token", "create")
		own["resourceNames"] = []any{d.NodeAccount("").Name}
		rules = append(rules, own)
	}
	return rules
}

func rule(group, resource string, verbs ...string) Object {
	return Object{"apiGroups": []any{group}, "resources": []any{resource}, "verbs": list(verbs)}
}

// binding binds the role of a daemon in a scope to its accounts on these nodes.
func binding(d product.Daemon, scope api.Scope, namespace, name string, nodes []string) Object {
	kind := "RoleBinding"
	if namespace == "" {
		kind = "ClusterRoleBinding"
	}
	o := object(GroupRBAC+"/v1", kind, namespace, name)
	o["roleRef"] = Object{"apiGroup": GroupRBAC, "kind": "ClusterRole", "name": roleName(d, scope)}
	var subjects []any
	for _, n := range nodes {
		a := d.NodeAccount(n)
		subjects = append(subjects, Object{"kind": "ServiceAccount", "name": a.Name, "namespace": a.Namespace})
	}
	o["subjects"] = subjects
	return o
}

func object(version, kind, namespace, name string) Object {
	metadata := Object{"name": name, "labels": Object{labelManager: manager}}
	if namespace != "" {
		metadata["namespace"] = namespace
	}
	return Object{"apiVersion": version, "kind": kind, "metadata": metadata}
}

func list[T any](values []T) (out []any) {
	for _, v := range values {
		out = append(out, v)
	}
	return out
}
