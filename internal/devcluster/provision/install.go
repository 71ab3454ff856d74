// Package provision prepares a control plane for the daemons: definitions, namespaces,
// service accounts and their rights, and the credential files of a compute node.
//
// It must not know how the server runs.
package provision

import (
	"context"
	"fmt"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/apiclient"
	"github.com/compute-daemons/compute-daemons/internal/devcluster/manifests"
)

// systemNamespaces exist on every system, besides one namespace per compute node and
// rabbit. The server creates "default".
var systemNamespaces = []string{"nnf-system", "nnf-dm-system", "dws-system"}

// Install creates or restores definitions, namespaces and accounts, and returns when
// all definitions are served.
func Install(ctx context.Context, admin *rest.Config, crds []*apiext.CustomResourceDefinition, nodes []string) error {
	served := make(chan error, 1)
	go func() { served <- installCRDs(ctx, admin, crds) }() // takes some time per definition
	err := installAccounts(ctx, admin, nodes)
	if crdErr := <-served; crdErr != nil {
		return crdErr
	}
	return err
}

func installAccounts(ctx context.Context, admin *rest.Config, nodes []string) error {
	client, err := apiclient.New(admin)
	if err != nil {
		return err
	}
	accounts, err := manifests.Accounts()
	if err != nil {
		return err
	}
	var objects []*unstructured.Unstructured
	for _, name := range append(nodes, systemNamespaces...) {
		objects = append(objects, namespace(name))
	}
	for _, object := range append(objects, accounts...) {
		if _, err := client.Apply(ctx, object); err != nil {
			return fmt.Errorf("%s %s: %w", object.GetKind(), object.GetName(), err)
		}
	}
	return nil
}

func namespace(name string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       "Namespace",
		"metadata":   map[string]any{"name": name},
	}}
}
