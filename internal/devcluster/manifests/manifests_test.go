package manifests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	apiext "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// want has the kinds, their versions (the stored version first), and whether status
// is a subresource.
var want = map[string]struct {
	versions string
	status   bool
}{
	"clientmounts.dataworkflowservices.github.io":         {"v1alpha7 v1alpha6", true},
	"workflows.dataworkflowservices.github.io":            {"v1alpha7 v1alpha6", false},
	"systemconfigurations.dataworkflowservices.github.io": {"v1alpha7 v1alpha6", true},
	"servers.dataworkflowservices.github.io":              {"v1alpha7 v1alpha6", true},
	"nnfstorages.nnf.cray.hpe.com":                        {"v1alpha11 v1alpha10", true},
	"nnfstorageprofiles.nnf.cray.hpe.com":                 {"v1alpha11 v1alpha10", false},
	"nnfdatamovements.nnf.cray.hpe.com":                   {"v1alpha11 v1alpha10", true},
	"nnfdatamovementprofiles.nnf.cray.hpe.com":            {"v1alpha11 v1alpha10", false},
	"lustrefilesystems.lus.cray.hpe.com":                  {"v1beta1 v1alpha1", true},
}

func TestBuiltInDefinitions(t *testing.T) {
	crds, err := CRDs()
	if err != nil {
		t.Fatal(err)
	}
	if len(crds) != len(want) {
		t.Errorf("%d definitions, want %d", len(crds), len(want))
	}
	for _, crd := range crds {
		t.Run(crd.Spec.Names.Kind, func(t *testing.T) {
			expected, ok := want[crd.Name]
			if !ok {
				t.Fatalf("unexpected %s", crd.Name)
			}
			if crd.Name != crd.Spec.Names.Plural+"."+crd.Spec.Group || crd.Spec.Scope != apiext.NamespaceScoped {
				t.Errorf("name or scope: %s %s", crd.Name, crd.Spec.Scope)
			}
			var names []string
			for i, v := range crd.Spec.Versions {
				names = append(names, v.Name)
				if !v.Served || v.Storage != (i == 0) {
					t.Errorf("%s: served %v, storage %v", v.Name, v.Served, v.Storage)
				}
				if got := v.Subresources != nil && v.Subresources.Status != nil; got != expected.status {
					t.Errorf("%s: status subresource %v", v.Name, got)
				}
				if !reflect.DeepEqual(v.Schema, crd.Spec.Versions[0].Schema) {
					t.Errorf("%s: schema differs from the stored version's", v.Name)
				}
			}
			if got := strings.Join(names, " "); got != expected.versions {
				t.Errorf("versions %s, want %s", got, expected.versions)
			}
			checkStrict(t, crd.Spec.Names.Kind, crd.Spec.Versions[0].Schema.OpenAPIV3Schema, 0)
		})
	}
}

// checkStrict fails if a schema accepts unknown fields.
func checkStrict(t *testing.T, path string, s *apiext.JSONSchemaProps, depth int) {
	t.Helper()
	if s.XPreserveUnknownFields != nil || s.XEmbeddedResource {
		t.Errorf("%s keeps unknown fields", path)
	}
	if s.Type == "" && !s.XIntOrString {
		t.Errorf("%s has no type", path)
	}
	if s.AdditionalProperties != nil {
		if len(s.Properties) > 0 || s.AdditionalProperties.Schema == nil {
			t.Errorf("%s is a map without a value type", path)
			return
		}
		checkStrict(t, path+".*", s.AdditionalProperties.Schema, depth+1)
	}
	for name, p := range s.Properties {
		checkStrict(t, path+"."+name, &p, depth+1)
	}
	for _, name := range s.Required {
		if _, ok := s.Properties[name]; !ok {
			t.Errorf("%s requires %s, which it does not have", path, name)
		}
	}
	if s.Type == "array" {
		checkStrict(t, path+"[]", s.Items.Schema, depth+1)
	}
}

func TestCRDsFrom(t *testing.T) {
	const good = `
apiVersion: v1
kind: ConfigMap
metadata: {name: passed-over}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  names: {kind: Thing, plural: things}
  scope: Namespaced
  conversion: {strategy: Webhook, webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://127.0.0.1:1/"}}}
  versions: []
status:
  storedVersions: [v0]
`
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := CRDsFrom(dir); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("an empty directory: %v", err)
	}
	write("a.yaml", good)
	write("README.md", "not: [yaml")
	crds, err := CRDsFrom(dir)
	if err != nil || len(crds) != 1 {
		t.Fatalf("%v, %v", crds, err)
	}
	if crds[0].Spec.Conversion != nil || len(crds[0].Status.StoredVersions) > 0 {
		t.Error("conversion or status is not removed")
	}
	write("b.yaml", strings.Replace(good, "scope:", "skope:", 1))
	if _, err := CRDsFrom(dir); err == nil || !strings.Contains(err.Error(), "b.yaml") || !strings.Contains(err.Error(), "skope") {
		t.Errorf("a misspelt key: %v", err)
	}
}

func TestAccounts(t *testing.T) {
	objects, err := Accounts()
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]int{}
	for _, o := range objects {
		kinds[o.GetKind()]++
	}
	got, _ := json.Marshal(kinds)
	if string(got) != `{"ClusterRole":2,"ClusterRoleBinding":2,"Secret":2,"ServiceAccount":2}` {
		t.Errorf("kinds: %s", got)
	}
}

func TestDecode(t *testing.T) {
	const object = "apiVersion: v1\nkind: X\nmetadata: {name: a}\n"
	for name, test := range map[string]struct {
		text  string
		count int
		fail  string
	}{
		"one":            {text: object, count: 1},
		"json":           {text: `{"apiVersion":"v1","kind":"X","metadata":{"name":"a"}}`, count: 1},
		"several":        {text: "---\n" + object + "---\n# nothing\n---\n" + object, count: 2},
		"empty":          {},
		"no name":        {text: "apiVersion: v1\nkind: X\n", fail: "document 1"},
		"no kind":        {text: object + "---\napiVersion: v1\nmetadata: {name: a}\n", fail: "document 2"},
		"no version":     {text: "kind: X\nmetadata: {name: a}\n", fail: "document 1"},
		"duplicate key":  {text: object + "kind: Y\n", fail: "document 1"},
		"not an object":  {text: "- a\n", fail: "document 1"},
		"not yaml":       {text: "a: [", fail: "document 1"},
		"tab in the key": {text: "\tkind: X", fail: "document 1"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := Decode([]byte(test.text))
			if test.fail == "" && (err != nil || len(got) != test.count) {
				t.Errorf("%d objects, %v", len(got), err)
			}
			if test.fail != "" && (err == nil || !strings.Contains(err.Error(), test.fail)) {
				t.Errorf("error %v; want %q in it", err, test.fail)
			}
		})
	}
}
