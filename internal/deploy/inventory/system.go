package inventory

import (
	"context"
	"fmt"
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
		// In files that followed an old guide. The type has it no more, and it
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

// FromFile reads the SystemConfiguration from a file, in which there may be other
// documents.
func FromFile(path string) (System, error) {
	data, err := readFile(path)
	if err != nil {
		return System{}, err
	}
	var found []System
	for _, part := range documents(data) {
		var t struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string `yaml:"kind"`
		}
		if err := yaml.Unmarshal(part, &t); err != nil {
			return System{}, explain(path, err, nil)
		}
		if t.Kind != kind {
			continue
		}
		if group, _, _ := strings.Cut(t.APIVersion, "/"); group != api.GroupDWS {
			return System{}, fmt.Errorf("%s: a SystemConfiguration of %q, not of %s", path, t.APIVersion, api.GroupDWS)
		}
		var d document
		if err := yaml.UnmarshalStrict(part, &d); err != nil {
			return System{}, explain(path, err, []string{"storageNodes", "externalComputeNodes", "computesAccess", "name", "index", "type", "ports", "portsCooldownInSeconds"})
		}
		found = append(found, d.system())
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return System{}, fmt.Errorf("%s: no SystemConfiguration in it (apiVersion %s/%s, kind %s)", path, api.GroupDWS, api.VersionsDWS[0], kind)
	}
	return System{}, fmt.Errorf("%s: %d SystemConfigurations, which one is it?", path, len(found))
}
