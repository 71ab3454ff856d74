package inventory

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// file puts a text into a file of the test.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// names is what a system's nodes are called, in their order.
func names(s System) (string, error) {
	nodes, err := Nodes(s)
	var list []string
	for _, n := range nodes {
		list = append(list, n.Name)
	}
	return strings.Join(list, " "), err
}

const head = "apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nmetadata: {name: default, namespace: default}\n"

func TestFromFile(t *testing.T) {
	for _, tt := range []struct{ name, text, want, err string }{
		{"whole", head + `spec:
  ports: [5000-5999, 7000]
  portsCooldownInSeconds: 0
  externalComputeNodes: [{name: login-01}]
  storageNodes:
  - type: Rabbit
    name: rabbit-01
    computesAccess:
    - {index: 0, name: compute-01}
    - {index: 1, name: compute-02}
status: {ready: true}
`, "compute-01 compute-02 login-01", ""},
		{"an old list", head + "spec:\n  computeNodes: [{name: x}]\n  storageNodes: [{type: Rabbit, name: r, computesAccess: [{index: 0, name: c}]}]\n", "c", ""},
		{"JSON", `{"apiVersion":"dataworkflowservices.github.io/v1alpha6","kind":"SystemConfiguration","spec":{"externalComputeNodes":[{"name":"a"}]}}`, "a", ""},
		{"among others", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\n" + head + "spec: {externalComputeNodes: [{name: a}]}\n---\n", "a", ""},
		{"misspelt", head + "spec:\n  storageNodes:\n  - name: r\n    computeAccess:\n    - {index: 0, name: c}\n", "", `:7: unknown key "computeAccess", did you mean "computesAccess"?`},
		{"twice", head + "spec: {}\n---\n" + head + "spec: {}\n", "", "2 SystemConfigurations"},
		{"wrong kind", "apiVersion: v1\nkind: ConfigMap\n", "", "no SystemConfiguration in it (apiVersion dataworkflowservices.github.io/v1alpha7"},
		{"wrong group", "apiVersion: example.org/v1\nkind: SystemConfiguration\n", "", `of "example.org/v1", not of dataworkflowservices.github.io`},
		{"empty", "", "", "no SystemConfiguration in it"},
		{"no YAML", "a: b: c", "", "mapping values are not allowed"},
		{"a word", "hello", "", ":1: `hello` cannot stand here"},
		{"wrong type", head + "spec: {storageNodes: {name: r}}", "", "a mapping cannot stand here"},
		{"a key twice", head + "spec:\n  ports: []\n  ports: []\n", "", `:6: key "ports" is there twice`},
	} {
		path := file(t, "system.yaml", tt.text)
		s, warnings, err := FromFile(path)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if (len(warnings) == 1) != (tt.name == "an old list") || len(warnings) > 0 && warnings[0] != path+": computeNodes has no effect: storageNodes and externalComputeNodes name the nodes" {
			t.Errorf("%s: %q", tt.name, warnings)
		}
		if got, nerr := names(s); err != nil || nerr != nil || got != tt.want {
			t.Errorf("%s: %q %v %v", tt.name, got, err, nerr)
		}
	}
	if _, _, err := FromFile(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("%v", err)
	}
}
