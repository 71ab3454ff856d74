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

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// asDaemon asks the API server with a daemon's token, and returns by which flow
// schema the request was let in.
func asDaemon(ctx context.Context, t *testing.T, s *world.World, daemon, path string) (status int, schema string) {
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

// Strictly read, nothing in the files is misspelt, and an installation that has
// the accounts already keeps them.
func TestAccountsAreTaken(t *testing.T) {
	s := world.New(t)
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		s.ApplyFile(filepath.Join(manifests, daemon+"-rbac.yaml"))
		if status, _ := asDaemon(s.Context(30*time.Second), t, s, daemon, lab.Path("ClientMount", s.Node, "")); status != http.StatusOK {
			t.Errorf("%s may not list ClientMounts any more: %d", daemon, status)
		}
		if status, _ := asDaemon(s.Context(30*time.Second), t, s, daemon, lab.Path("Secret", s.Node, "")); status != http.StatusForbidden {
			t.Errorf("%s may list secrets: %d", daemon, status)
		}
	}
}

// With the flow schemas in place each daemon's requests go into its own share.
func TestRequestsAreInTheirShare(t *testing.T) {
	s := world.New(t)
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
			// The server takes over a schema when its own watch tells it.
			ctx, got := s.Context(30*time.Second), ""
			if err := wait.For(ctx, "the schema", func() (bool, error) {
				_, got = asDaemon(ctx, t, s, daemon, path)
				return got == want, nil
			}); err != nil || want == "" {
				t.Errorf("%s of %s went by schema %q, want %q: %v", path, daemon, got, want, err)
			}
		}
	}
}
