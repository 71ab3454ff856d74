package inventory

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v2"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// System is the SystemConfiguration, as far as it names nodes.
type System = dws.SystemConfiguration

// kind and object of the SystemConfiguration; there is one in a cluster.
const (
	kind   = "SystemConfiguration"
	object = "default"
)

// FromCluster reads the SystemConfiguration of the cluster.
func FromCluster(ctx context.Context, c *kube.Client) (System, error) {
	var s System
	version, err := c.Served(ctx, api.GroupDWS, api.VersionsDWS)
	if err != nil {
		return s, fmt.Errorf("%w; without it give --system-config FILE", err)
	}
	r := kube.Resource{Group: api.GroupDWS, Version: version, Plural: "systemconfigurations", Kind: kind}
	err = c.Get(ctx, r, dws.NamespaceSystemConfiguration, object, &s)
	if kube.IsNotFound(err) {
		return s, fmt.Errorf("the cluster has no SystemConfiguration %s/%s, which names the computes: is this the right context? otherwise give --system-config FILE", dws.NamespaceSystemConfiguration, object)
	}
	return s, err
}

// document is the whole of a SystemConfiguration, so that a word that is misspelt
// in a file is an error and not a rabbit without computes.
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
		// In files that followed an old guide. The type no longer has it, and it
		// never named a node that storageNodes does not.
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

// item is one object of a list: a SystemConfiguration, or something else.
type item struct{ *document }

// UnmarshalYAML implements yaml.Unmarshaler.
func (i *item) UnmarshalYAML(unmarshal func(any) error) error {
	var shape map[string]any
	if err := unmarshal(&shape); err != nil {
		return err
	}
	if shape["kind"] != kind {
		return nil
	}
	i.document = new(document)
	return unmarshal(i.document)
}

// list is what kubectl prints for several objects, and for one found by -A.
type list struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	Metadata   any    `yaml:"metadata"`
	Items      []item `yaml:"items"`
}

// keys of a SystemConfiguration, to suggest one for a key that is misspelt.
var keys = []string{"storageNodes", "externalComputeNodes", "computesAccess", "name", "index", "type", "ports", "portsCooldownInSeconds", "items", "metadata", "spec"}

// FromFile reads the SystemConfiguration from a file, in which there may be other
// documents, and lists as kubectl prints them. Of several it is the one that the
// cluster uses, default in namespace default. Keys without effect are warnings.
func FromFile(path string) (s System, warnings []string, err error) {
	data, err := readFile(path)
	if err != nil {
		return s, nil, err
	}
	var found []*document
	for _, part := range documents(data) {
		var t struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string `yaml:"kind"`
		}
		if err := yaml.Unmarshal(part, &t); err != nil {
			return s, nil, explain(path, err, nil)
		}
		switch t.Kind {
		case kind:
			d := new(document)
			if err := d.group(path, t.APIVersion); err != nil {
				return s, nil, err
			}
			if err := yaml.UnmarshalStrict(part, d); err != nil {
				return s, nil, explain(path, err, keys)
			}
			found = append(found, d)
		case "List", kind + "List":
			var l list
			if err := yaml.UnmarshalStrict(part, &l); err != nil {
				return s, nil, explain(path, err, keys)
			}
			for _, i := range l.Items {
				if i.document == nil {
					continue
				}
				if err := i.group(path, i.APIVersion); err != nil {
					return s, nil, err
				}
				found = append(found, i.document)
			}
		}
	}
	if used := slices.DeleteFunc(slices.Clone(found), func(d *document) bool { return !d.used() }); len(found) > 1 && len(used) == 1 {
		found = used
	}
	switch len(found) {
	case 1:
		if found[0].Spec.ComputeNodes != nil {
			warnings = append(warnings, path+": computeNodes has no effect: storageNodes and externalComputeNodes name the nodes")
		}
		return found[0].system(), warnings, nil
	case 0:
		return s, nil, fmt.Errorf("%s: no SystemConfiguration in it (apiVersion %s/%s, kind %s)", path, api.GroupDWS, api.VersionsDWS[0], kind)
	}
	return s, nil, fmt.Errorf("%s: %d SystemConfigurations, which one is it?", path, len(found))
}

// group returns an error for an object of another API group.
func (d *document) group(path, version string) error {
	if group, _, _ := strings.Cut(version, "/"); group != api.GroupDWS {
		return fmt.Errorf("%s: a SystemConfiguration of %q, not of %s", path, version, api.GroupDWS)
	}
	return nil
}

// used tells whether it is the object that the cluster uses.
func (d *document) used() bool {
	m, ok := d.Metadata.(map[any]any)
	return ok && m["name"] == object && m["namespace"] == dws.NamespaceSystemConfiguration
}
