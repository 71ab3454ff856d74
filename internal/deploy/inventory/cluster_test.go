package inventory

import (
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// client is an administrator's at an API server that answers as given, by path.
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
	served := func(version string) string {
		return `{"kind":"APIGroup","versions":[{"groupVersion":"x","version":"` + version + `"}]}`
	}
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
		{"newest", map[string]string{group: served("v1alpha7"), at("v1alpha7"): object}, "c1 login", ""},
		{"older", map[string]string{group: served("v1alpha6"), at("v1alpha6"): object}, "c1 login", ""},
		{"no such definitions", nil, "", "does not serve dataworkflowservices.github.io at all"},
		{"no object", map[string]string{group: served("v1alpha7")}, "", "has no SystemConfiguration default/default, which names the computes: is this the right context? otherwise give --system-config FILE"},
		{"not allowed", map[string]string{group: served("v1alpha7"), at("v1alpha7"): forbidden}, "", "may not get systemconfigurations"},
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
