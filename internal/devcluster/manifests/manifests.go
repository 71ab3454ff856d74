// Package manifests has the initial objects of a development cluster: the definitions
// of the objects that the daemons share with Near-Node Flash, with strict schemas, so
// that tests detect misspelt fields, and the service accounts of the daemons with
// exactly the rights that a site grants them.
//
// It only decodes YAML, and must not know a server.
package manifests

import (
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

//go:embed crds/*.yaml
var crds embed.FS

//go:embed accounts.yaml
var accounts []byte

// CRDs returns the built-in definitions.
func CRDs() ([]*apiext.CustomResourceDefinition, error) {
	sub, err := fs.Sub(crds, "crds")
	if err != nil {
		return nil, err
	}
	return readCRDs(sub, "built-in definitions")
}

// CRDsFrom returns the definitions in the *.yaml files of a directory. It skips other
// kinds. A directory without definitions is an error.
func CRDsFrom(dir string) ([]*apiext.CustomResourceDefinition, error) {
	return readCRDs(os.DirFS(dir), dir)
}

// Accounts returns service accounts, token secrets, roles and bindings.
func Accounts() ([]*unstructured.Unstructured, error) { return Decode(accounts) }

func readCRDs(dir fs.FS, name string) ([]*apiext.CustomResourceDefinition, error) {
	files, err := fs.Glob(dir, "*.yaml")
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var out []*apiext.CustomResourceDefinition
	for _, file := range files {
		text, err := fs.ReadFile(dir, file)
		if err != nil {
			return nil, err
		}
		found, err := decodeCRDs(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", filepath.Join(name, file), err)
		}
		out = append(out, found...)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no CustomResourceDefinition in its *.yaml files", name)
	}
	return out, nil
}

// decodeCRDs is strict: otherwise a misspelt key would silently weaken a schema.
func decodeCRDs(text []byte) ([]*apiext.CustomResourceDefinition, error) {
	docs, err := documents(text)
	if err != nil {
		return nil, err
	}
	var out []*apiext.CustomResourceDefinition
	for _, doc := range docs {
		var head struct{ Kind string }
		if err := yaml.Unmarshal(doc, &head); err != nil {
			return nil, err
		}
		if head.Kind != "CustomResourceDefinition" {
			continue
		}
		crd := &apiext.CustomResourceDefinition{}
		if err := yaml.UnmarshalStrict(doc, crd); err != nil {
			return nil, err
		}
		// Conversion webhooks do not run here, and the served versions differ only in
		// their names.
		crd.Spec.Conversion = nil
		crd.Status = apiext.CustomResourceDefinitionStatus{}
		out = append(out, crd)
	}
	return out, nil
}
