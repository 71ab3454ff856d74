package inventory

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/compute-daemons/compute-daemons/internal/deploy/nodeset"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Node is a compute node.
type Node struct {
	Name   string
	Rabbit string // the rabbit that it is attached to; empty for an external compute node
}

// maxName is the maximum length of a name in DNS and Kubernetes.
const maxName = validation.DNS1123SubdomainMaxLength

// dnsName reports whether s is a DNS name as Kubernetes accepts it (RFC 1123). A
// DNS name cannot start with a hyphen, like an option, and has no characters that are
// special to a shell or to ssh.
func dnsName(s string) bool { return len(validation.IsDNS1123Subdomain(s)) == 0 }

// CheckName returns an error if s is not a valid name of a node.
func CheckName(s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the name of the node is empty")
	case len(s) > maxName:
		return fmt.Errorf("the name of a node has %d characters; the maximum is %d", len(s), maxName)
	case dnsName(strings.ToLower(s)) && s != strings.ToLower(s):
		return fmt.Errorf("node name %s must be in lower case", text.Quote(s))
	case !dnsName(s):
		return fmt.Errorf("%s is not a valid node name: use only a-z, 0-9, hyphens and dots, with a letter or digit at both ends", text.Quote(s))
	}
	return nil
}

// Nodes returns the compute nodes of a system in the order of the object: first those
// attached to rabbits, then the external ones, each once.
func Nodes(s System) ([]Node, error) {
	var all []Node
	var bad []error
	seen := make(map[string]bool)
	add := func(n Node) {
		if err := CheckName(n.Name); err != nil {
			bad = append(bad, err)
		} else if !seen[n.Name] {
			seen[n.Name] = true
			all = append(all, n)
		}
	}
	for _, rabbit := range s.Spec.StorageNodes {
		for _, c := range rabbit.ComputesAccess {
			add(Node{Name: c.Name, Rabbit: rabbit.Name})
		}
	}
	for _, c := range s.Spec.ExternalComputeNodes {
		add(Node{Name: c.Name})
	}
	switch {
	case len(bad) > 1:
		return nil, fmt.Errorf("SystemConfiguration %s: %w (and %d more invalid names)", s.Name, bad[0], len(bad)-1)
	case len(bad) == 1:
		return nil, fmt.Errorf("SystemConfiguration %s: %w", s.Name, bad[0])
	case len(all) == 0:
		return nil, fmt.Errorf("SystemConfiguration %s lists no compute nodes, neither in storageNodes[].computesAccess nor in externalComputeNodes", s.Name)
	}
	return all, nil
}

// Select returns the nodes in these host lists, in the order of all. Without a list, it
// returns all.
func Select(all []Node, lists []string) ([]Node, error) {
	if len(lists) == 0 {
		return all, nil
	}
	names, err := nodeset.ExpandAll(lists)
	if err != nil {
		return nil, err
	}
	wanted := make(map[string]bool, len(names))
	for _, n := range names {
		wanted[n] = true
	}
	known := make([]string, len(all))
	var chosen []Node
	for i, n := range all {
		known[i] = n.Name
		if wanted[n.Name] {
			chosen = append(chosen, n)
			delete(wanted, n.Name)
		}
	}
	if len(wanted) > 0 {
		unknown := slices.DeleteFunc(names, func(n string) bool { return !wanted[n] })
		hint := text.DidYouMean(unknown[0], known)
		if hint == "" {
			hint = "; its nodes are " + nodeset.Fold(known, maxListed)
		}
		return nil, fmt.Errorf("not a compute node of this system: %.200q%s", nodeset.Fold(unknown, maxListed), hint)
	}
	return chosen, nil
}

// maxListed is the maximum number of items of a host list in a message.
const maxListed = 10
