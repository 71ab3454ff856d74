package deploycreds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// asDaemon sends a request with the token of a daemon, and returns the status code and the flow
// schema that the API server has used.
func asDaemon(ctx context.Context, t *testing.T, s *fixture.Fixture, daemon, path string) (status int, schema string) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(s.Cluster.Dir, daemon, "service.token"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.Cluster.CA())
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.Cluster.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("X-Kubernetes-PF-FlowSchema-UID")
}

// The API server accepts the manifests with strict validation, and accounts of an existing
// installation keep working.
func TestManifestsForExistingAccounts(t *testing.T) {
	s := fixture.New(t)
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		s.ApplyFile(filepath.Join(manifests, daemon+"-rbac.yaml"))
		if status, _ := asDaemon(s.Context(30*time.Second), t, s, daemon, lab.Path("ClientMount", s.Node, "")); status != http.StatusOK {
			t.Errorf("%s may no longer list ClientMounts: %d", daemon, status)
		}
		if status, _ := asDaemon(s.Context(30*time.Second), t, s, daemon, lab.Path("Secret", s.Node, "")); status != http.StatusForbidden {
			t.Errorf("%s may list secrets: %d", daemon, status)
		}
	}
}

// With the flow schemas, the requests of each daemon match one of its two schemas: that for objects
// which all nodes read, or that for all others.
func TestFlowSchemas(t *testing.T) {
	s := fixture.New(t)
	schemas := map[string]string{} // names by uid
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		made := s.ApplyFile(filepath.Join(manifests, daemon+"-flowcontrol.yaml"))
		t.Cleanup(func() {
			for _, o := range slices.Backward(made) {
				_, _ = s.Cluster.Do(context.Background(), http.MethodDelete, lab.Path(o.String("kind"), "", o.Name()), "", nil)
			}
		})
		for _, o := range made {
			if o.String("kind") == "FlowSchema" {
				schemas[o.String("metadata", "uid")] = o.Name()
			}
		}
	}
	for _, tt := range []struct{ daemon, path, schema string }{
		{"clientmountd", lab.Path("ClientMount", s.Node, ""), "nnf-clientmount"},
		{"clientmountd", "/apis", "nnf-clientmount"},
		{"clientmountd", lab.Path("NnfStorageProfile", "nnf-system", "a"), "nnf-clientmount-shared"},
		{"nnf-dm", lab.Path("ClientMount", s.Node, ""), "nnf-dm-daemon"},
		{"nnf-dm", lab.Path("NnfDataMovement", "rabbit-1", ""), "nnf-dm-daemon"},
		{"nnf-dm", "/apis", "nnf-dm-daemon"},
		{"nnf-dm", lab.Path("NnfDataMovement", "nnf-dm-system", ""), "nnf-dm-daemon-shared"},
		{"nnf-dm", lab.Path("NnfDataMovement", "", ""), "nnf-dm-daemon-shared"},
		{"nnf-dm", lab.Path("Workflow", "default", "a"), "nnf-dm-daemon-shared"},
		{"nnf-dm", lab.Path("SystemConfiguration", "default", "default"), "nnf-dm-daemon-shared"},
		{"nnf-dm", lab.Path("LustreFileSystem", "", ""), "nnf-dm-daemon-shared"},
		{"nnf-dm", lab.Path("NnfDataMovementProfile", "nnf-system", ""), "nnf-dm-daemon-shared"},
	} {
		// The server uses a schema when its watch has delivered it.
		ctx, got := s.Context(2*time.Minute), ""
		if err := wait.For(ctx, "the schema", func() (bool, error) {
			_, uid := asDaemon(ctx, t, s, tt.daemon, tt.path)
			got = schemas[uid]
			return got == tt.schema, nil
		}); err != nil {
			t.Errorf("%s of %s used schema %q, want %q: %v", tt.path, tt.daemon, got, tt.schema, err)
		}
	}
}
