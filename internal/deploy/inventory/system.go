package inventory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// System is the SystemConfiguration, with the fields that list nodes.
type System = dws.SystemConfiguration

// Kind and object name of the SystemConfiguration. A cluster uses one such object.
const (
	kind   = "SystemConfiguration"
	object = "default"
)

// FromCluster reads the SystemConfiguration of the cluster.
func FromCluster(ctx context.Context, c *kube.Client) (System, error) {
	var s System
	r := kube.Resource{Group: api.GroupDWS, Plural: "systemconfigurations", Kind: kind}
	var err error
	if r.Version, err = c.Served(ctx, r, api.VersionsDWS); err != nil {
		return s, fmt.Errorf("%w; alternatively, use --system-config FILE", err)
	}
	err = c.Get(ctx, r, dws.NamespaceSystemConfiguration, object, &s)
	if kube.IsNotFound(err) {
		return s, fmt.Errorf("the cluster has no SystemConfiguration %s/%s, which lists the compute nodes: check --context, or use --system-config FILE", dws.NamespaceSystemConfiguration, object)
	}
	return s, err
}

// document has all fields of a SystemConfiguration, so that a misspelt key in a file is an
// error, and not a rabbit without compute nodes.
type document struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   any    `yaml:"metadata"`
	Status     any    `yaml:"status"`
	Spec       struct {
		StorageNodes []struct {
			Type           string `yaml:"type"`
			Name           string `yaml:"name"`
			ComputesAccess []struct {
				Name  string `yaml:"name"`
				Index int    `yaml:"index"`
			} `yaml:"computesAccess"`
		} `yaml:"storageNodes"`
		ExternalComputeNodes []struct {
			Name string `yaml:"name"`
		} `yaml:"externalComputeNodes"`
		Ports         any `yaml:"ports"`
		PortsCooldown any `yaml:"portsCooldownInSeconds"`
		// Files that follow an old guide have it. The type no longer has it, and it never
		// listed a node that storageNodes does not list.
		ComputeNodes any `yaml:"computeNodes"`
	} `yaml:"spec"`
}

func (d *document) system() (s System) {
	s.Name = object
	for _, rabbit := range d.Spec.StorageNodes {
		n := dws.StorageNode{Type: rabbit.Type, Name: rabbit.Name}
		for _, c := range rabbit.ComputesAccess {
			n.ComputesAccess = append(n.ComputesAccess, dws.ComputeAccess{Name: c.Name, Index: c.Index})
		}
		s.Spec.StorageNodes = append(s.Spec.StorageNodes, n)
	}
	for _, c := range d.Spec.ExternalComputeNodes {
		s.Spec.ExternalComputeNodes = append(s.Spec.ExternalComputeNodes, dws.ExternalNode{Name: c.Name})
	}
	return s
}

// list is the form in which kubectl prints several objects, or one object with -A.
type list struct {
	APIVersion string      `yaml:"apiVersion"`
	Kind       string      `yaml:"kind"`
	Metadata   any         `yaml:"metadata"`
	Items      []yaml.Node `yaml:"items"`
}

// FromFile reads the SystemConfiguration from a file, which may contain other documents,
// and lists as kubectl prints them. Of several, it returns the one that the cluster uses,
// default in namespace default. Keys that have no effect are warnings.
func FromFile(path string) (s System, warnings []string, err error) {
	documents, err := readYAML(path)
	if err != nil {
		return s, nil, err
	}
	y := &strict{path: path}
	var found []*document
	for len(documents) > 0 {
		n := documents[0]
		documents = documents[1:]
		of, err := y.kindOf(n)
		switch {
		case err != nil:
			return s, nil, err
		case of == kind:
			version := scalar(n, "apiVersion")
			if group, _, _ := strings.Cut(version, "/"); group != api.GroupDWS {
				return s, nil, y.errorf(n, "this SystemConfiguration has apiVersion %s, but its group must be %s", text.Quote(version), api.GroupDWS)
			}
			d := new(document)
			if err := y.decode(n, d); err != nil {
				return s, nil, err
			}
			found = append(found, d)
		case of == "List" || of == kind+"List":
			var l list
			if err := y.decode(n, &l); err != nil {
				return s, nil, err
			}
			for i := range l.Items {
				item := &l.Items[i]
				if item.Kind == yaml.AliasNode {
					item = item.Alias
				}
				of, err := y.kindOf(item)
				if err != nil {
					return s, nil, err
				}
				if of == kind {
					documents = append(documents, item)
				}
			}
		}
	}
	if used := slices.DeleteFunc(slices.Clone(found), func(d *document) bool { return !d.used() }); len(found) > 1 && len(used) == 1 {
		found = used
	}
	switch len(found) {
	case 1:
		if found[0].Spec.ComputeNodes != nil {
			warnings = append(warnings, path+": computeNodes has no effect: storageNodes and externalComputeNodes list the nodes")
		}
		return found[0].system(), warnings, nil
	case 0:
		return s, nil, fmt.Errorf("%s contains no SystemConfiguration (apiVersion %s/%s, kind %s)", path, api.GroupDWS, api.VersionsDWS[0], kind)
	}
	return s, nil, fmt.Errorf("%s contains %d SystemConfigurations: keep only that of this system", path, len(found))
}

// used reports whether d is the object that the cluster uses.
func (d *document) used() bool {
	m, ok := d.Metadata.(map[string]any)
	return ok && m["name"] == object && m["namespace"] == dws.NamespaceSystemConfiguration
}
