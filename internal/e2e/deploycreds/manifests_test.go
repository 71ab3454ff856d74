package deploycreds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"os"
	"path/filepath"
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

// With the flow schemas, the requests of each daemon match its schema.
func TestFlowSchemas(t *testing.T) {
	s := fixture.New(t)
	schemas := map[string]string{}
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		of := s.ApplyFile(filepath.Join(manifests, daemon+"-flowcontrol.yaml"))
		schemas[daemon] = of["FlowSchema"].String("metadata", "uid")
		t.Cleanup(func() {
			for kind, o := range of {
				_, _ = s.Cluster.Do(context.Background(), http.MethodDelete, lab.Path(kind, "", o.Name()), "", nil)
			}
		})
	}
	for daemon, want := range schemas {
		for _, path := range []string{lab.Path("ClientMount", s.Node, ""), "/apis"} {
			// The server uses a schema when its watch has delivered it.
			ctx, got := s.Context(30*time.Second), ""
			if err := wait.For(ctx, "the schema", func() (bool, error) {
				_, got = asDaemon(ctx, t, s, daemon, path)
				return got == want, nil
			}); err != nil || want == "" {
				t.Errorf("%s of %s used schema %q, want %q: %v", path, daemon, got, want, err)
			}
		}
	}
}
