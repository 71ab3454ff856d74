package credentials

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// nodesServer is an API server with a node, or one that is too old to bind a token to a
// node. The API server of the end-to-end tests has no nodes.
type nodesServer struct {
	*httptest.Server
	node  string // name of its only node
	old   bool
	asked []string // the tokens that were requested
	grant time.Duration
}

func serveNodes(t *testing.T) (*nodesServer, *kube.Client) {
	t.Helper()
	s := &nodesServer{node: "compute-01", grant: 24 * time.Hour}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	put(t, dir, "ca", string(s.ca()), 0o600)
	put(t, dir, "config", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}],
		"users": [{"name": "u", "user": {"token": "administrator"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`,
		s.URL, filepath.Join(dir, "ca")), 0o600)
	c, err := kube.Dial(kube.Options{Kubeconfig: filepath.Join(dir, "config"), QPS: -1, Environ: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	return s, c
}

func (s *nodesServer) ca() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
}

func (s *nodesServer) serve(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	fail := func(code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":"no","details":{"name":"x"}}`, code, reason)
	}
	switch path := r.URL.Path; {
	case path == "/api/v1/nodes/"+s.node:
		fmt.Fprintf(w, `{"metadata":{"name":%q,"uid":"u-1"}}`, s.node)
	case strings.HasSuffix(path, "/serviceaccounts/a/token"):
		var ask tokenRequest
		_ = json.Unmarshal(body, &ask)
		s.asked = append(s.asked, fmt.Sprint(ask.Spec.Seconds, ask.Spec.Bound != nil && *ask.Spec.Bound == objectRef{"v1", "Node", s.node, "u-1"}))
		if s.old && ask.Spec.Bound != nil {
			fail(http.StatusUnprocessableEntity, "Invalid")
			return
		}
		ends := time.Now().Add(s.grant).UTC().Format(time.RFC3339)
		fmt.Fprintf(w, `{"status":{"token":"made","expirationTimestamp":%q}}`, ends)
	case strings.HasSuffix(path, "/selfsubjectreviews") && r.Header.Get("Authorization") == "Bearer made":
		fmt.Fprint(w, `{"status":{"userInfo":{"username":"system:serviceaccount:n:a"}}}`)
	case strings.HasSuffix(path, "/selfsubjectaccessreviews") && r.Header.Get("Authorization") == "Bearer made":
		fmt.Fprint(w, `{"status":{"allowed":true}}`)
	default:
		fail(http.StatusNotFound, "NotFound")
	}
}

func TestBoundToNode(t *testing.T) {
	for _, tt := range []struct {
		name, node string
		old        bool
		grant      time.Duration
		asked      string
		bound      string
		note       string
	}{
		{"a node of the cluster", "compute-01", false, 24 * time.Hour, "86400 true", "compute-01", ""},
		{"no node", "", false, 24 * time.Hour, "86400 false", "", ""},
		{"a node that the cluster does not know", "compute-02", false, 24 * time.Hour, "86400 false", "", `no Node "compute-02"`},
		{"an old API server", "compute-01", true, 24 * time.Hour, "86400 true, 86400 false", "", "does not bind tokens to nodes"},
		{"a shorter time", "", false, time.Hour, "86400 false", "", "grants 1h0m0s at most, not 24h0m0s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, admin := serveNodes(t)
			s.old, s.grant = tt.old, tt.grant
			c, err := Get(t.Context(), admin, Request{
				Account: product.Account{Name: "a", Namespace: "n"}, Program: "clientmountd", Bound: true, Node: tt.node, Lifetime: 24 * time.Hour,
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(s.asked, ", "); got != tt.asked || c.Node != tt.bound || c.Token != "made" || string(c.CA) != string(s.ca()) || c.Rights != 12 {
				t.Errorf("asked %s: %+v", got, c)
			}
			if notes := strings.Join(c.Notes, "\n"); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("notes: %s", notes)
			}
		})
	}
}

func TestMinLifetime(t *testing.T) {
	_, admin := serveNodes(t)
	r := Request{Account: product.Account{Name: "a", Namespace: "n"}, Program: "clientmountd", Bound: true, Lifetime: time.Minute}
	if _, err := Get(t.Context(), admin, r); err == nil || !strings.Contains(err.Error(), "10m0s or longer") {
		t.Errorf("%v", err)
	}
}

// The rights that a daemon uses come first, so that a missing one is named first.
func TestRightsInOrder(t *testing.T) {
	for _, program := range product.Names() {
		used := 0
		for i, r := range rightsOf(program) {
			if r.used {
				used++
				if used != i+1 {
					t.Errorf("%s: %v comes late", program, r)
				}
			}
		}
		if used < 3 {
			t.Errorf("%s uses %d", program, used)
		}
	}
	if len(rightsOf("other")) > 0 {
		t.Error("rights of a program that is not known")
	}
}
