package inventory

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

// Keys of files for earlier installers are accepted with a warning that names
// their line.
func TestRetiredKeys(t *testing.T) {
	path := filepath.Join("testdata", "daemons-retired.yaml")
	daemons, warnings, err := ReadDaemons(path)
	if err != nil || len(daemons) != 1 || daemons[0].Bin != "clientmountd" || daemons[0].Account != (product.Account{Name: "nnf-clientmount", Namespace: "nnf-system"}) {
		t.Errorf("%+v %v", daemons, err)
	}
	if want := []string{path + ":7: skipNnfNodeName has no effect: no daemon is given the name of its rabbit"}; !slices.Equal(warnings, want) {
		t.Errorf("%q", warnings)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, warnings, err = ReadDaemons(file(t, "daemons.yaml", strings.Replace(string(text), "namespace: nnf-system}", "namespace: nnf-system, token: service-token-file, cert: service-cert-file}", 1)))
	if err != nil || len(warnings) != 3 || !strings.Contains(warnings[1]+warnings[2], ":8: token has no effect") || !strings.Contains(warnings[1]+warnings[2], ":8: cert has no effect") {
		t.Errorf("%q %v", warnings, err)
	}

	path = filepath.Join("testdata", "systems-retired.yaml")
	sites, warnings, err := ReadSites(path)
	if err != nil || len(sites) != 1 || sites[0].SystemConfiguration != filepath.Join("testdata", "tds.yaml") {
		t.Errorf("%+v %v", sites, err)
	}
	for _, key := range []string{":5: master", ":6: workers", ":7: ports", ":8: rabbits", ":10: overrides"} {
		if !slices.ContainsFunc(warnings, func(w string) bool { return strings.HasPrefix(w, path+key+" has no effect: ") }) {
			t.Errorf("%s is not in %q", key, warnings)
		}
	}
	if len(warnings) != 5 {
		t.Errorf("%q", warnings)
	}
}

// A retired key makes no other mistake acceptable, and is retired at its place only.
func TestRetiredKeysAmongMistakes(t *testing.T) {
	const account = "serviceAccount: {name: a, namespace: n}"
	for _, tt := range []struct{ text, want string }{
		{"- name: x\n  skipNnfNodeName: true\n  binary: y\n  " + account, `:3: unknown key "binary"`},
		{"- name: x\n  skipNnfNodename: true\n  " + account, `:2: unknown key "skipNnfNodename"`},
		{"- name: x\n  workers: []\n  " + account, `:2: unknown key "workers"`},
		{"- name: x\n  token: y\n  " + account, `:2: unknown key "token"`},
		{"- name: x\n  serviceAccount: {name: a, namespace: n, skipNnfNodeName: true}", `unknown key "skipNnfNodeName"`},
		{"- name: x\n  skipNnfNodeName: true\n  env: 7\n  " + account, ":3: `7` cannot stand here"},
	} {
		_, warnings, err := ReadDaemons(file(t, "daemons.yaml", tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || warnings != nil {
			t.Errorf("%q: %q %v", tt.text, warnings, err)
		}
	}
	_, _, err := ReadSites(file(t, "systems.yaml", "- name: a\n  rabbits: {r: {0: c}}\n"))
	if err == nil || !strings.Contains(err.Error(), "a has no systemConfiguration, the file that names its nodes (rabbits has no effect)") {
		t.Error(err)
	}
	_, _, err = ReadSites(file(t, "systems.yaml", "- name: a\n  skipNnfNodeName: true\n  systemConfiguration: x\n"))
	if err == nil || !strings.Contains(err.Error(), `:2: unknown key "skipNnfNodeName"`) {
		t.Error(err)
	}
}

// kubectl prints a list even if there is one object, when it is asked for all
// namespaces.
func TestFromList(t *testing.T) {
	const item = "- apiVersion: dataworkflowservices.github.io/v1alpha7\n  kind: SystemConfiguration\n  metadata: {name: NAME, namespace: default}\n  spec: {externalComputeNodes: [{name: NAME-node}]}\n"
	const pod = "- apiVersion: v1\n  kind: Pod\n  spec: {containers: []}\n"
	one := func(name string) string { return strings.ReplaceAll(item, "NAME", name) }
	head := "apiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n"
	kubectl, err := os.ReadFile(filepath.Join("testdata", "list.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, want, err string }{
		{"of kubectl", string(kubectl), "compute-01 compute-02", ""},
		{"among other objects", head + pod + one("x") + pod, "x-node", ""},
		{"of several, the one in use", head + one("a") + one("default") + one("b"), "default-node", ""},
		{"of its own kind", strings.Replace(head, "kind: List", "kind: SystemConfigurationList", 1) + one("x"), "x-node", ""},
		{"JSON", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"dataworkflowservices.github.io/v1alpha6","kind":"SystemConfiguration","spec":{"externalComputeNodes":[{"name":"a"}]}}]}`, "a", ""},
		{"beside another document", "kind: ConfigMap\n---\n" + head + one("x"), "x-node", ""},
		{"of several, none in use", head + one("a") + one("b"), "", "2 SystemConfigurations, which one is it?"},
		{"twice the one in use", head + one("default") + one("default"), "", "2 SystemConfigurations"},
		{"of nothing", head + pod, "", "no SystemConfiguration in it"},
		{"empty", "apiVersion: v1\nkind: List\nitems: []\n", "", "no SystemConfiguration in it"},
		{"misspelt inside", head + pod + strings.Replace(one("x"), "externalComputeNodes", "externalComputeNode", 1), "", `:11: unknown key "externalComputeNode", did you mean "externalComputeNodes"?`},
		{"misspelt outside", strings.Replace(head, "metadata", "metdata", 1) + one("x"), "", `:3: unknown key "metdata"`},
		{"of another group", head + strings.Replace(one("x"), "dataworkflowservices.github.io", "example.org", 1), "", `of "example.org/v1alpha7"`},
		{"of texts", head + "- hello\n", "", "cannot stand here"},
	} {
		path := file(t, "system.yaml", tt.text)
		s, _, err := FromFile(path)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if got, nerr := names(s); err != nil || nerr != nil || got != tt.want {
			t.Errorf("%s: %q %v %v", tt.name, got, err, nerr)
		}
	}
}
