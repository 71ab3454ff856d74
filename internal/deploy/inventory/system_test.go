package inventory

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// file writes a text to a temporary file.
func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// names returns the names of the nodes of a system, in order.
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
		{"complete", head + `spec:
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
		{"old list", head + "spec:\n  computeNodes: [{name: x}]\n  storageNodes: [{type: Rabbit, name: r, computesAccess: [{index: 0, name: c}]}]\n", "c", ""},
		{"JSON", `{"apiVersion":"dataworkflowservices.github.io/v1alpha6","kind":"SystemConfiguration","spec":{"externalComputeNodes":[{"name":"a"}]}}`, "a", ""},
		{"among other documents", "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\n" + head + "spec: {externalComputeNodes: [{name: a}]}\n---\n", "a", ""},
		{"misspelt key", head + "spec:\n  storageNodes:\n  - name: r\n    computeAccess:\n    - {index: 0, name: c}\n", "", `:7: unknown key "computeAccess", did you mean "computesAccess"?`},
		{"two objects", head + "spec: {}\n---\n" + head + "spec: {}\n", "", "2 SystemConfigurations"},
		{"wrong kind", "apiVersion: v1\nkind: ConfigMap\n", "", "contains no SystemConfiguration (apiVersion dataworkflowservices.github.io/v1alpha7"},
		{"wrong group", "apiVersion: example.org/v1\nkind: SystemConfiguration\n", "", `has apiVersion "example.org/v1", but its group must be dataworkflowservices.github.io`},
		{"empty", "", "", "contains no SystemConfiguration"},
		{"no YAML", "a: b: c", "", "mapping values are not allowed"},
		{"scalar", "hello", "", `:1: expected a mapping, found "hello"`},
		{"wrong type", head + "spec: {storageNodes: {name: r}}", "", ":4: expected a list, found a mapping"},
		{"not a number", head + "spec: {storageNodes: [{name: r, computesAccess: [{name: c, index: x}]}]}", "", `:4: expected a number, found "x"`},
		{"byte order mark", "\ufeff" + head + "spec: {externalComputeNodes: [{name: a}]}", "a", ""},
		{"duplicate key in a free part", "--- # first\n" + head + "status: {a: 1, b: {c: 2, c: 3}}\n", "", `:5: duplicate key "c"`},
		{"list that contains itself", "&x\nkind: List\nitems: [*x]\n", "", "contains no SystemConfiguration"},
		{"alias in a list", "kind: List\nitems:\n- &x {kind: Pod}\n- *x\n", "", "contains no SystemConfiguration"},
		{"duplicate key", head + "spec:\n  ports: []\n  ports: []\n", "", `:6: duplicate key "ports"`},
	} {
		path := file(t, "system.yaml", tt.text)
		s, warnings, err := FromFile(path)
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) || !strings.HasPrefix(err.Error(), path) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if (len(warnings) == 1) != (tt.name == "old list") || len(warnings) > 0 && warnings[0] != path+": computeNodes has no effect: storageNodes and externalComputeNodes list the nodes" {
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

// With -A, kubectl prints a list even if there is only one object.
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
		{"from kubectl", string(kubectl), "compute-01 compute-02", ""},
		{"among other objects", head + pod + one("x") + pod, "x-node", ""},
		{"several, one in use", head + one("a") + one("default") + one("b"), "default-node", ""},
		{"SystemConfigurationList", strings.Replace(head, "kind: List", "kind: SystemConfigurationList", 1) + one("x"), "x-node", ""},
		{"JSON", `{"apiVersion":"v1","kind":"List","items":[{"apiVersion":"dataworkflowservices.github.io/v1alpha6","kind":"SystemConfiguration","spec":{"externalComputeNodes":[{"name":"a"}]}}]}`, "a", ""},
		{"beside another document", "kind: ConfigMap\n---\n" + head + one("x"), "x-node", ""},
		{"several, none in use", head + one("a") + one("b"), "", "2 SystemConfigurations: keep only that of this system"},
		{"two in use", head + one("default") + one("default"), "", "2 SystemConfigurations"},
		{"only other objects", head + pod, "", "contains no SystemConfiguration"},
		{"empty", "apiVersion: v1\nkind: List\nitems: []\n", "", "contains no SystemConfiguration"},
		{"misspelt key in an item", head + pod + strings.Replace(one("x"), "externalComputeNodes", "externalComputeNode", 1), "", `:11: unknown key "externalComputeNode", did you mean "externalComputeNodes"?`},
		{"misspelt key of the list", strings.Replace(head, "metadata", "metdata", 1) + one("x"), "", `:3: unknown key "metdata"`},
		{"different group", head + strings.Replace(one("x"), "dataworkflowservices.github.io", "example.org", 1), "", `has apiVersion "example.org/v1alpha7"`},
		{"list of strings", head + "- hello\n", "", `:5: expected a mapping, found "hello"`},
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

// client returns a client of a fake API server that returns these answers, by path.
func client(t *testing.T, answers map[string]string) *kube.Client {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		answer, ok := answers[r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			answer = `{"kind":"Status","apiVersion":"v1","status":"Failure","code":404,"reason":"NotFound","message":"no","details":{"name":"default"}}`
		} else if strings.Contains(answer, `"code":403`) {
			w.WriteHeader(http.StatusForbidden)
		}
		fmt.Fprint(w, answer)
	}))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := file(t, "ca", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	config := file(t, "config", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}],
		"users": [{"name": "u", "user": {"token": "t"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`, s.URL, ca))
	c, err := kube.Dial(kube.Options{Kubeconfig: config, QPS: -1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestFromCluster(t *testing.T) {
	const group = "/apis/dataworkflowservices.github.io"
	const served = `{"kind":"APIResourceList","resources":[{"name":"systemconfigurations"}]}`
	const object = `{"metadata":{"name":"default"},"spec":{"storageNodes":[{"name":"r","computesAccess":[{"name":"c1","index":0}]}],"externalComputeNodes":[{"name":"login"}]}}`
	const forbidden = `{"kind":"Status","apiVersion":"v1","status":"Failure","code":403,"reason":"Forbidden","message":"no RBAC"}`
	at := func(version string) string {
		return group + "/" + version + "/namespaces/default/systemconfigurations/default"
	}
	for _, tt := range []struct {
		name    string
		answers map[string]string
		want    string
		err     string
	}{
		{"newest", map[string]string{group + "/v1alpha7": served, at("v1alpha7"): object}, "c1 login", ""},
		{"older", map[string]string{group + "/v1alpha6": served, at("v1alpha6"): object}, "c1 login", ""},
		{"group is not served", nil, "", "does not serve dataworkflowservices.github.io"},
		{"no object", map[string]string{group + "/v1alpha7": served}, "", "has no SystemConfiguration default/default, which lists the compute nodes: check --context, or use --system-config FILE"},
		{"not allowed", map[string]string{group + "/v1alpha7": served, at("v1alpha7"): forbidden}, "", "may not get systemconfigurations"},
	} {
		s, err := FromCluster(t.Context(), client(t, tt.answers))
		if tt.err != "" {
			if err == nil || !strings.Contains(err.Error(), tt.err) {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if got, nerr := names(s); err != nil || nerr != nil || got != tt.want {
			t.Errorf("%s: %q %v %v", tt.name, got, err, nerr)
		}
	}
}
