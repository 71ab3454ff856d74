package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// TestRunningCluster shares one server between all checks that do not restart it.
func TestRunningCluster(t *testing.T) {
	c := start(t, filepath.Join(t.TempDir(), strings.Repeat("long", 30)))
	for name, check := range map[string]func(*testing.T, *cluster){
		"files":      checkFiles,
		"namespaces": checkNamespaces,
		"rights":     checkRights,
		"requests":   checkRequests,
		"versions":   checkVersions,
		"validation": checkValidation,
		"verbs":      checkVerbs,
		"in use":     checkInUse,
		"rotation":   checkRotation,
		"join":       checkJoin,
	} {
		t.Run(name, func(t *testing.T) { check(t, c) })
	}
	// As if the test is killed.
	c.stdin.Close()
	c.end(t)
}

func checkFiles(t *testing.T, c *cluster) {
	if got := "https://" + strings.TrimSpace(c.read(t, "address")); got != c.url {
		t.Errorf("address gives %s, the ready line %s", got, c.url)
	}
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		if c.read(t, daemon+"/service.cert") != c.read(t, "pki/ca.crt") {
			t.Errorf("%s/service.cert is not the authority", daemon)
		}
		if token := c.client(t, daemon+"/kubeconfig").BearerToken; token == "" || token != c.read(t, daemon+"/service.token") {
			t.Errorf("%s: kubeconfig and service.token differ", daemon)
		}
		for name, mode := range map[string]os.FileMode{"": 0o700, "service.token": 0o600, "service.cert": 0o600, "kubeconfig": 0o600} {
			if info, err := os.Stat(filepath.Join(c.dir, daemon, name)); err != nil || info.Mode().Perm() != mode {
				t.Errorf("%s/%s: %v, %v; want mode %v", daemon, name, info, err, mode)
			}
		}
	}
}

func checkNamespaces(t *testing.T, c *cluster) {
	for _, name := range []string{"default", "nnf-system", "nnf-dm-system", "dws-system", "compute-01", "compute-02", "rabbit-01"} {
		c.must(t, "", "get", "namespaces", name)
	}
}

// granted has all rights of each account. All other combinations of resources and
// verbs must be denied.
var granted = map[string]map[string]string{
	"system:serviceaccount:nnf-system:nnf-clientmount": {
		dws + " clientmounts":            "get list patch update watch",
		dws + " clientmounts/finalizers": "update",
		dws + " clientmounts/status":     "get patch update",
		nnf + " nnfstorageprofiles":      "get list watch",
	},
	"system:serviceaccount:nnf-dm-system:nnf-dm-daemon": {
		lus + " lustrefilesystems":           "get list watch",
		dws + " workflows":                   "get list",
		dws + " clientmounts":                "get list",
		dws + " clientmounts/status":         "get list",
		dws + " systemconfigurations":        "get list watch",
		nnf + " nnfdatamovements":            "create delete get list patch update watch",
		nnf + " nnfdatamovementprofiles":     "get list watch",
		nnf + " nnfdatamovements/finalizers": "update",
		nnf + " nnfdatamovements/status":     "get patch update",
	},
}

func checkRights(t *testing.T, c *cluster) {
	admin := restClient(t, c.client(t, "admin.kubeconfig"))
	resources := []string{" secrets", " events", " namespaces", " configmaps", " serviceaccounts/token",
		"coordination.k8s.io leases", "rbac.authorization.k8s.io clusterroles", "apiextensions.k8s.io customresourcedefinitions"}
	for _, o := range objects {
		for _, sub := range []string{"", "/status", "/finalizers"} {
			resources = append(resources, o.group+" "+o.resource+sub)
		}
	}
	asked := 0
	for account, rights := range granted {
		for _, resource := range resources {
			for _, verb := range strings.Fields("create delete deletecollection get list patch update watch") {
				want := slices.Contains(strings.Fields(rights[resource]), verb)
				group, name, _ := strings.Cut(resource, " ")
				name, sub, _ := strings.Cut(name, "/")
				if got := mayDo(t, admin, account, verb, group, name, sub); got != want {
					t.Errorf("%s %s %s: allowed %v, want %v", account, verb, resource, got, want)
				}
				asked++
			}
		}
	}
	t.Logf("%d questions", asked)
}

func restClient(t *testing.T, config *rest.Config) *http.Client {
	t.Helper()
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		t.Fatal(err)
	}
	client.Transport = prefix{config.Host, client.Transport}
	return client
}

// prefix adds the address of the server to requests with just a path.
type prefix struct {
	host string
	next http.RoundTripper
}

func (p prefix) RoundTrip(r *http.Request) (*http.Response, error) {
	r.URL.Scheme, r.URL.Host = "https", strings.TrimPrefix(p.host, "https://")
	return p.next.RoundTrip(r)
}

// ask sends a request and returns the status code and the response.
func ask(t *testing.T, client *http.Client, method, path, contentType, body string) (int, map[string]any) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, "http://server"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", contentType)
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, answer
}

func mayDo(t *testing.T, admin *http.Client, account, verb, group, resource, sub string) bool {
	t.Helper()
	space := strings.Split(account, ":")[2]
	review := fmt.Sprintf(`{"apiVersion":"authorization.k8s.io/v1","kind":"SubjectAccessReview","spec":{"user":%q,
		"groups":["system:serviceaccounts","system:serviceaccounts:%s","system:authenticated"],
		"resourceAttributes":{"namespace":"compute-01","verb":%q,"group":%q,"resource":%q,"subresource":%q}}}`, account, space, verb, group, resource, sub)
	code, answer := ask(t, admin, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", "application/json", review)
	if code != http.StatusCreated {
		t.Fatalf("review: %d %v", code, answer)
	}
	return answer["status"].(map[string]any)["allowed"].(bool)
}

// checkRequests checks the rights with real requests.
func checkRequests(t *testing.T, c *cluster) {
	c.must(t, strings.Replace(clientMount, "name: sample", "name: requests", 1), "apply", "-f", "-")
	daemon := restClient(t, c.client(t, "clientmountd/kubeconfig"))
	const mounts = "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/compute-01/clientmounts"
	const merge = "application/merge-patch+json"
	for _, test := range []struct {
		method, path, kind, body string
		want                     int
	}{
		{"GET", mounts, "", "", 200},
		{"GET", mounts + "/requests", "", "", 200},
		{"PATCH", mounts + "/requests/status", merge, `{"status":{"allReady":false,"mounts":[{"state":"mounted","ready":false}]}}`, 200},
		{"PATCH", mounts + "/requests", merge, `{"metadata":{"finalizers":["nnf.cray.hpe.com/nnf_clientmount"]}}`, 200},
		{"PATCH", mounts + "/requests", merge, `{"metadata":{"finalizers":null}}`, 200},
		{"DELETE", mounts + "/requests", "", "", 403},
		{"POST", mounts, "application/json", `{}`, 403},
		{"GET", "/apis/nnf.cray.hpe.com/v1alpha11/namespaces/default/nnfstorageprofiles", "", "", 200},
		{"GET", "/apis/nnf.cray.hpe.com/v1alpha11/namespaces/default/nnfdatamovements", "", "", 403},
		{"GET", "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/compute-01/servers", "", "", 403},
		{"GET", "/api/v1/namespaces/nnf-system/secrets", "", "", 403},
	} {
		if got, answer := ask(t, daemon, test.method, test.path, test.kind, test.body); got != test.want {
			t.Errorf("%s %s: %d %v, want %d", test.method, test.path, got, answer["message"], test.want)
		}
	}
	forged := c.client(t, "clientmountd/kubeconfig")
	forged.BearerToken += "x"
	if got, _ := ask(t, restClient(t, forged), "GET", mounts, "", ""); got != 401 {
		t.Errorf("a forged token: %d, want 401", got)
	}
}

func checkVersions(t *testing.T, c *cluster) {
	for _, o := range objects {
		if out := c.must(t, o.yaml, "apply", "-f", "-"); !strings.Contains(out, "sample created") {
			t.Errorf("%s: %s", o.resource, out)
		}
		var uids [2]any
		for i, version := range []string{o.older, o.newer} {
			var got struct {
				APIVersion string
				Metadata   map[string]any
			}
			text := c.must(t, "", "get", o.resource+"."+version+"."+o.group, "compute-01/sample", "-o", "json")
			if err := json.Unmarshal([]byte(text), &got); err != nil || got.APIVersion != o.group+"/"+version {
				t.Errorf("%s: asked for %s, got %s, %v", o.resource, version, got.APIVersion, err)
			}
			uids[i] = got.Metadata["uid"]
		}
		if uids[0] == nil || uids[0] != uids[1] {
			t.Errorf("%s: not one object in both versions: %v", o.resource, uids)
		}
		c.must(t, "", "delete", o.resource, "compute-01/sample", "--wait", "1m")
	}
}

func checkValidation(t *testing.T, c *cluster) {
	for name, test := range map[string]struct{ from, to, message string }{
		"unknown field":      {"  node: compute-01", "  node: compute-01\n  nodes: x", "unknown field"},
		"state":              {"desiredState: mounted", "desiredState: Mounted", "desiredState"},
		"missing node":       {"  node: compute-01\n", "", "spec.node"},
		"file system":        {"type: gfs2", "type: ext4", "ext4"},
		"missing permission": {"    setPermissions: false\n", "", "setPermissions"},
		"wrong type":         {"data: 3", "data: three", "data"},
		"device type":        {"type: lvm", "type: zfs", "zfs"},
		"reference":          {"objectReference:", "objektReference:", "objektReference"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(clientMount, test.from, test.to, 1)
			if text == clientMount {
				t.Fatal("the test does not change the object")
			}
			code, out, stderr := c.call(t, text, "apply", "-f", "-")
			if code != 1 || out != "" || !strings.Contains(stderr, test.message) {
				t.Errorf("exit %d, %q, %q; want an error about %s", code, out, stderr, test.message)
			}
		})
	}
	text, _, _ := strings.Cut(clientMount, "  mounts:")
	if code, _, stderr := c.call(t, text+"  mounts: []\n", "apply", "-f", "-"); code != 1 || !strings.Contains(stderr, "at least 1 items") {
		t.Errorf("no mounts: exit %d, %s", code, stderr)
	}
}

func checkVerbs(t *testing.T, c *cluster) {
	text := strings.Replace(clientMount, "name: sample", "name: verbs", 1)
	const name = "compute-01/verbs"
	// A wait may start before the object exists.
	waited := make(chan error, 1)
	go func() {
		code, _, stderr := c.call(t, "", "wait", "clientmounts", name, "--for", "status.mounts.0.ready=true", "--timeout", "2m")
		if code != 0 {
			waited <- fmt.Errorf("wait: exit %d, %s", code, stderr)
		}
		close(waited)
	}()
	for _, want := range []string{"created", "unchanged"} {
		if out := c.must(t, text, "apply", "-f", "-"); out != "ClientMount "+name+" "+want+"\n" {
			t.Errorf("apply: %q, want %s", out, want)
		}
	}
	if out := c.must(t, strings.Replace(text, "desiredState: mounted", "desiredState: unmounted", 1), "apply", "-f", "-"); !strings.Contains(out, "changed") {
		t.Errorf("apply of a change: %q", out)
	}
	c.must(t, "", "patch", "clientmount", name, `[{"op":"replace","path":"/spec/desiredState","value":"mounted"},{"op":"add","path":"/metadata/finalizers","value":["example.org/hold"]}]`)
	c.must(t, "", "patch", "--subresource", "status", "clientmount", name, `{"status":{"allReady":true,"mounts":[{"state":"mounted","ready":true}]}}`)
	if err := <-waited; err != nil {
		t.Error(err)
	}
	out := c.must(t, "", "get", "clientmount", name)
	if !strings.Contains(out, "desiredState: mounted\n") || !strings.Contains(out, "allReady: true\n") || strings.Contains(out, "managedFields") {
		t.Errorf("get:\n%s", out)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"wait", "clientmounts", name, "--for", "spec.node=x", "--timeout", "200ms"}, `spec.node is "compute-01"`},
		{[]string{"wait", "clientmounts", name, "--for", "spec.none=x", "--timeout", "200ms"}, "spec.none is not set"},
		{[]string{"wait", "clientmounts", "compute-01/none", "--for", "spec.node=x", "--timeout", "200ms"}, "does not exist"},
		{[]string{"delete", "clientmounts", name, "--wait", "200ms"}, "example.org/hold"},
		{[]string{"get", "clientmounts", "compute-01/none"}, "not found"},
		{[]string{"get", "clientmounts", "verbs"}, "NAMESPACE/NAME"},
		{[]string{"get", "namespaces", "a/b"}, "are not namespaced"},
		{[]string{"get", "nothings", "a"}, "nothings"},
	} {
		if code, _, stderr := c.call(t, "", test.args[0], test.args[1:]...); code != 1 || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: exit %d, %q; want %q", test.args, code, stderr, test.want)
		}
	}
	c.must(t, "", "patch", "clientmounts", name, `{"metadata":{"finalizers":null}}`)
	if code, _, _ := c.call(t, "", "get", "clientmounts", name); code != 1 {
		t.Error("the object still exists without its finalizer")
	}
}

func checkInUse(t *testing.T, c *cluster) {
	code, out, stderr := c.call(t, "", "up", "--stdin")
	want := fmt.Sprintf("in use by process %d", c.cmd.Process.Pid)
	if code != 1 || out != "" || !strings.Contains(stderr, want) {
		t.Errorf("a second up: exit %d, %q, %q; want %q", code, out, stderr, want)
	}
}

// A further API server has the same objects, accepts the same credentials, and may come and
// go without an effect on the first one.
func checkJoin(t *testing.T, c *cluster) {
	second := serve(t, "join", c.dir)
	if second.url == c.url {
		t.Fatalf("both servers have the address %s", c.url)
	}
	elsewhere := func(kubeconfig string) *http.Client {
		config := c.client(t, kubeconfig)
		config.Host = second.url
		return restClient(t, config)
	}
	const path = "/api/v1/namespaces"
	body := `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"from-the-second"}}`
	if code, answer := ask(t, elsewhere("admin.kubeconfig"), "POST", path, "application/json", body); code != 201 {
		t.Errorf("a creation through the second server: %d, %v", code, answer)
	}
	c.must(t, "", "get", "namespaces", "from-the-second")
	mounts := "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/compute-01/clientmounts"
	if code, answer := ask(t, elsewhere("clientmountd/kubeconfig"), "GET", mounts, "", ""); code != 200 {
		t.Errorf("the token of clientmountd on the second server: %d, %v", code, answer)
	}
	second.stdin.Close()
	if err := second.cmd.Wait(); err != nil {
		t.Errorf("the second server exited with %v", err)
	}
	c.must(t, "", "delete", "namespaces", "from-the-second", "--wait", "1m")
	if out, err := exec.Command(binary, "join", "--dir", t.TempDir(), "--stdin").CombinedOutput(); err == nil || !strings.Contains(string(out), "not running") {
		t.Errorf("join without a cluster: %v, %s", err, out)
	}
}

func checkRotation(t *testing.T, c *cluster) {
	old := c.client(t, "nnf-dm/kubeconfig")
	c.must(t, "", "token", "--daemon", "nnf-dm")
	fresh := c.client(t, "nnf-dm/kubeconfig")
	if fresh.BearerToken == old.BearerToken || fresh.BearerToken != c.read(t, "nnf-dm/service.token") {
		t.Error("the files do not have a new token")
	}
	const path = "/apis/nnf.cray.hpe.com/v1alpha11/namespaces/default/nnfdatamovements"
	if code, _ := ask(t, restClient(t, fresh), "GET", path, "", ""); code != 200 {
		t.Errorf("the new token: %d", code)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for stale := restClient(t, old); ; {
		if code, _ := ask(t, stale, "GET", path, "", ""); code == 401 {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatal("the old token still works after a minute")
		case <-tick.C:
		}
	}
}
