package lab

import (
	"context"
	"errors"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// A ClientMount from its creation to its deletion. The test acts as the daemon.
func TestCluster(t *testing.T) {
	l := newLab(t)
	if _, err := Binary("devcluster"); err != nil {
		t.Skip("no API server: ", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	c, err := l.StartCluster(ctx, ClusterOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{c.TokenFile(), c.CertFile()} {
		if _, err := os.Stat(f); err != nil {
			t.Error(err)
		}
	}
	o := Object{
		"apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "ClientMount", "metadata": map[string]any{"name": "cm", "namespace": "compute-01"},
		"spec": map[string]any{"node": "compute-01", "desiredState": "mounted", "mounts": []any{map[string]any{
			"mountPath": "/mnt/nnf/a", "type": "xfs", "targetType": "directory", "options": "", "setPermissions": false,
			"device": map[string]any{"type": "reference", "deviceReference": map[string]any{
				"objectReference": map[string]any{"kind": "NnfNodeStorage", "name": "x", "namespace": "rabbit-01"}, "data": 0,
			}},
		}}},
	}
	if _, err := c.Apply(ctx, o); err != nil {
		t.Fatal(err)
	}
	if got, err := c.Get(ctx, "ClientMount", "compute-01", "cm"); err != nil || got.Ready("mounted") {
		t.Errorf("%v %v", got, err)
	}
	seen := make(chan error, 1)
	go func() {
		_, err := c.WaitStatus(ctx, "compute-01", "cm", func(o Object) bool { return o.Ready("mounted") })
		seen <- err
	}()
	states := []any{Object{"state": "mounted", "ready": true}}
	if err := c.PatchStatus(ctx, "ClientMount", "compute-01", "cm", Object{"mounts": states, "allReady": true}); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; err != nil {
		t.Error(err)
	}
	throughProxy(t, c)
	if err := c.Pause(); err != nil {
		t.Fatal(err)
	}
	short, cancelShort := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancelShort()
	if _, err := c.Get(short, "ClientMount", "compute-01", "cm"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a paused server responded: %v", err)
	}
	if err := c.Resume(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "ClientMount", "compute-01", "cm"); err != nil {
		t.Errorf("after Resume: %v", err)
	}
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	go func() { seen <- c.WaitGone(ctx, "ClientMount", "compute-01", "cm") }()
	if err := c.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "ClientMount", "compute-01", "cm"); err != nil {
		t.Errorf("the object is lost after a restart: %v", err)
	}
	if err := c.Delete(ctx, "ClientMount", "compute-01", "cm"); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitGone(ctx, "ClientMount", "compute-01", "cm"); err != nil {
		t.Error(err)
	}
	<-seen
	if _, err := c.Get(ctx, "ClientMount", "compute-01", "cm"); !IsNotFound(err) {
		t.Errorf("after the deletion: %v", err)
	}
	if _, err := c.Do(ctx, http.MethodGet, "/no/such", "", nil); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	noLeftovers(t, l)
}

// throughProxy checks that the credentials of the daemon work through a proxy.
func throughProxy(t *testing.T, c *Cluster) {
	t.Helper()
	p, err := StartProxy(c.URL, c.CA())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	token, err := os.ReadFile(c.TokenFile())
	if err != nil {
		t.Fatal(err)
	}
	daemon := &Client{base: "https://" + p.Address, token: strings.TrimSpace(string(token)), http: clientOf(t, p.CA())}
	if _, err := daemon.Get(soon(t), "ClientMount", "compute-01", ""); err != nil {
		t.Errorf("the service account cannot list: %v", err)
	}
	status := (*StatusError)(nil)
	if err := daemon.Delete(soon(t), "ClientMount", "compute-01", "cm"); !errors.As(err, &status) || status.Code != http.StatusForbidden {
		t.Errorf("the service account may delete: %v", err)
	}
	if p.Count() != 2 || p.Count(ClassList) != 1 || p.Count(ClassDelete) != 1 {
		t.Errorf("%d requests", p.Count())
	}
}

func TestObjectPaths(t *testing.T) {
	for _, tt := range []struct{ kind, ns, name, want string }{
		{"Namespace", "", "x", "/api/v1/namespaces/x"},
		{"Secret", "ns", "", "/api/v1/namespaces/ns/secrets"},
		{"ClientMount", "compute-01", "a", mounts + "/a"},
		{"ClusterRole", "", "r", "/apis/rbac.authorization.k8s.io/v1/clusterroles/r"},
	} {
		if got := Path(tt.kind, tt.ns, tt.name); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
	}
	o := Object{"a": []any{map[string]any{"b": "c"}}}
	if o.At("a", 0, "b") != "c" || o.At("a", 1) != nil || o.At("x", "y") != nil || o.String("a", "b") != "" {
		t.Error("At or String is wrong")
	}
}
