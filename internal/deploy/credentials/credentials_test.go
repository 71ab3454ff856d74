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

// nodesServer is a fake API server with one Node. With old, it does not bind tokens to
// Nodes. The API server of the end-to-end tests has no Nodes.
type nodesServer struct {
	*httptest.Server
	node     string // name of the Node
	old      bool
	requests []string // the requested tokens
	grant    time.Duration

	configMap string // kube-root-ca.crt of namespace n; empty: it does not exist
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
		var request kube.TokenRequest
		_ = json.Unmarshal(body, &request)
		s.requests = append(s.requests, fmt.Sprint(request.Spec.Seconds, request.Spec.Bound != nil && *request.Spec.Bound == kube.ObjectRef{APIVersion: "v1", Kind: "Node", Name: s.node, UID: "u-1"}))
		if s.old && request.Spec.Bound != nil {
			fail(http.StatusUnprocessableEntity, "Invalid")
			return
		}
		expires := time.Now().Add(s.grant).UTC().Format(time.RFC3339)
		fmt.Fprintf(w, `{"status":{"token":"created","expirationTimestamp":%q}}`, expires)
	case strings.HasSuffix(path, "/selfsubjectreviews") && r.Header.Get("Authorization") == "Bearer created":
		fmt.Fprint(w, `{"status":{"userInfo":{"username":"system:serviceaccount:n:a"}}}`)
	case strings.HasSuffix(path, "/selfsubjectaccessreviews") && r.Header.Get("Authorization") == "Bearer created":
		fmt.Fprint(w, `{"status":{"allowed":true}}`)
	case path == "/api/v1/namespaces/n/configmaps/kube-root-ca.crt" && s.configMap != "":
		fmt.Fprint(w, s.configMap)
	default:
		fail(http.StatusNotFound, "NotFound")
	}
}

func TestBoundToNode(t *testing.T) {
	for _, tt := range []struct {
		name, node string
		old        bool
		grant      time.Duration
		requests   string
		bound      string
		note       string
	}{
		{"known node", "compute-01", false, 24 * time.Hour, "86400 true", "compute-01", ""},
		{"without node", "", false, 24 * time.Hour, "86400 false", "", ""},
		{"unknown node", "compute-02", false, 24 * time.Hour, "86400 false", "", `no Node "compute-02"`},
		{"old API server", "compute-01", true, 24 * time.Hour, "86400 true, 86400 false", "", "does not bind tokens to nodes"},
		{"shorter lifetime", "", false, time.Hour, "86400 false", "", "granted a lifetime of 1h0m0s instead of 24h0m0s"},
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
			if got := strings.Join(s.requests, ", "); got != tt.requests || c.Node != tt.bound || c.Token != "created" || string(c.CA) != string(s.ca()) || c.Rights != 12 {
				t.Errorf("requests %s: %+v", got, c)
			}
			if notes := strings.Join(c.Notes, "\n"); !strings.Contains(notes, tt.note) || tt.note == "" && notes != "" {
				t.Errorf("notes: %s", notes)
			}
		})
	}
}

// The error has both reasons, on one line.
func TestNoAuthority(t *testing.T) {
	s, _ := serveNodes(t)
	config := filepath.Join(t.TempDir(), "config")
	put(t, filepath.Dir(config), "config", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": [{"name": "c", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}],
		"users": [{"name": "u", "user": {"token": "administrator"}}], "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}`, s.URL), 0o600)
	admin, err := kube.Dial(kube.Options{Kubeconfig: config, QPS: -1, Environ: func(string) string { return "" }})
	if err != nil {
		t.Fatal(err)
	}
	for configMap, reason := range map[string]string{"": `get ConfigMap "n/kube-root-ca.crt": no;`, `{"data":{"ca.crt":"x"}}`: "ConfigMap n/kube-root-ca.crt: it contains no PEM certificate"} {
		s.configMap = configMap
		_, err := Authority(t.Context(), admin, "n")
		if err == nil || !strings.Contains(err.Error(), reason) || !strings.HasSuffix(err.Error(), "; kubeconfig: it contains no PEM certificate") || strings.Contains(err.Error(), "\n") {
			t.Errorf("ConfigMap %q: %v", configMap, err)
		}
	}
}

func TestMinLifetime(t *testing.T) {
	_, admin := serveNodes(t)
	r := Request{Account: product.Account{Name: "a", Namespace: "n"}, Program: "clientmountd", Bound: true, Lifetime: time.Minute}
	if _, err := Get(t.Context(), admin, r); err == nil || !strings.Contains(err.Error(), "at least 10m0s") {
		t.Errorf("%v", err)
	}
}
