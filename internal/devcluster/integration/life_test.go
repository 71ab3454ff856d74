package integration

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestRestart kills and restarts a cluster and replaces its authority.
func TestRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	first := start(t, dir, "--compute", "node-a", "--rabbit", "rabbit-z")
	first.must(t, strings.ReplaceAll(clientMount, "compute-01", "node-a"), "apply", "-f", "-")
	first.must(t, "", "get", "namespaces", "rabbit-z")
	if code, _, _ := first.call(t, "", "get", "namespaces", "compute-01"); code != 1 {
		t.Error("--compute does not replace the default names")
	}
	object := first.must(t, "", "get", "clientmounts", "node-a/sample")
	token, ca := first.read(t, "clientmountd/service.token"), first.read(t, "clientmountd/service.cert")
	before := first.client(t, "clientmountd/kubeconfig")
	first.must(t, "", "delete", "clusterrolebindings", "nnf-clientmount-rolebinding")
	first.kill()

	second := start(t, dir, "--compute", "node-a")
	if second.url != first.url {
		t.Errorf("address %s after %s", second.url, first.url)
	}
	if second.must(t, "", "get", "clientmounts", "node-a/sample") != object {
		t.Error("the object changed")
	}
	if second.read(t, "clientmountd/service.token") != token || second.read(t, "clientmountd/service.cert") != ca {
		t.Error("the credentials changed")
	}
	const path = "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/node-a/clientmounts"
	if code, answer := ask(t, restClient(t, before), "GET", path, "", ""); code != 200 {
		t.Errorf("the old credentials: %d %v (is the removed binding back?)", code, answer)
	}
	if out, err := exec.Command(binary, "down", "--dir", dir).CombinedOutput(); err != nil || !strings.Contains(string(out), "has exited") {
		t.Errorf("down: %v, %s", err, out)
	}
	second.end(t)

	third := start(t, dir, "--new-ca")
	request, err := http.NewRequest("GET", "http://server"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = restClient(t, before).Do(request)
	if unknown := (x509.UnknownAuthorityError{}); !errors.As(err, &unknown) {
		t.Errorf("with the old authority: %v; want an unknown authority", err)
	}
	if third.read(t, "clientmountd/service.cert") == ca {
		t.Error("service.cert has the old authority")
	}
	if code, _ := ask(t, restClient(t, third.client(t, "clientmountd/kubeconfig")), "GET", path, "", ""); code != 200 {
		t.Errorf("with the new authority: %d", code)
	}
	if out, err := exec.Command(binary, "down", "--dir", dir, "--purge").CombinedOutput(); err != nil {
		t.Errorf("down --purge: %v, %s", err, out)
	}
	third.cmd.Wait()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("purge did not remove the directory: %v", err)
	}
}

// TestParentDeath kills a shell that runs devcluster as its child.
func TestParentDeath(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	shell := exec.Command("sh", "-c", `"$0" up --dir "$1"; true`, binary, dir)
	out, err := shell.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 200)
	if n, err := out.Read(line); err != nil || !strings.HasPrefix(string(line[:n]), "ready ") {
		t.Fatalf("%q, %v", line[:n], err)
	}
	shell.Process.Kill()
	// The cluster has the other end of the pipe, which is closed when it exits.
	began := time.Now()
	if _, err := out.Read(line); err == nil {
		t.Error("more than one line on standard output")
	}
	if took := time.Since(began); took > time.Minute {
		t.Errorf("exited %v after its parent", took)
	}
	shell.Wait()
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestOtherDefinitions installs definitions from a directory, one with a conversion
// webhook that is not running, and stops the cluster by a signal during a watch.
func TestOtherDefinitions(t *testing.T) {
	const crd = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: things.example.org}
spec:
  group: example.org
  names: {kind: Thing, listKind: ThingList, plural: things, singular: thing}
  scope: Namespaced
  conversion:
    strategy: Webhook
    webhook: {conversionReviewVersions: [v1], clientConfig: {url: "https://127.0.0.1:1/convert"}}
  versions:
  - {name: v2, served: true, storage: true, schema: &s {openAPIV3Schema: {type: object, properties: {spec: {type: object}}}}}
  - {name: v1, served: true, storage: false, schema: *s}
  - {name: v0, served: false, storage: false, schema: *s}
`
	crds := t.TempDir()
	if err := os.WriteFile(filepath.Join(crds, "thing.yaml"), []byte(crd), 0o600); err != nil {
		t.Fatal(err)
	}
	c := start(t, filepath.Join(t.TempDir(), "d"), "--crds", crds)
	c.must(t, "apiVersion: example.org/v1\nkind: Thing\nmetadata: {name: a}\n", "apply", "-f", "-")
	c.must(t, "", "get", "things.v2.example.org", "default/a")
	if code, _, _ := c.call(t, "", "get", "clientmounts", "default/a"); code != 1 {
		t.Error("the built-in definitions are installed, too")
	}
	response, err := restClient(t, c.client(t, "admin.kubeconfig")).Get("http://server/apis/example.org/v2/things?watch=1")
	if err != nil || response.StatusCode != 200 {
		t.Fatalf("watch: %v, %v", response, err)
	}
	defer response.Body.Close()
	if err := c.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	c.end(t)
}

// TestPortTaken starts a cluster on a port that is in use.
func TestPortTaken(t *testing.T) {
	dir := t.TempDir()
	c := start(t, filepath.Join(dir, "one"))
	port := c.url[strings.LastIndex(c.url, ":")+1:]
	out, err := exec.Command(binary, "up", "--dir", filepath.Join(dir, "two"), "--stdin", "--port", port).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "address already in use") {
		t.Errorf("%v, %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(dir, "three"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "three", "address"), fmt.Appendf(nil, "127.0.0.1:%s\n", port), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = exec.Command(binary, "up", "--dir", filepath.Join(dir, "three"), "--stdin").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "to use another one, set --port") {
		t.Errorf("%v, %s", err, out)
	}
	c.stdin.Close()
	c.end(t)
}
