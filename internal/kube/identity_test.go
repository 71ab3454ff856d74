package kube

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// kubeconfigOf is an administrator's, with two contexts.
func (s *apiServer) kubeconfigOf(ca string) string {
	return write(s.t, s.t.TempDir(), "config", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}, {"name": "d", "cluster": {"server": "https://other.invalid"}}],
		"users": [{"name": "u", "user": {"token": "administrator", "as": "somebody"}}],
		"contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}, {"name": "there", "context": {"cluster": "d", "user": "u"}}]}`, s.URL, ca), 0o600)
}

func TestAs(t *testing.T) {
	s := newServer(t)
	var last http.Header
	s.other = func(w http.ResponseWriter, r *http.Request) {
		last = r.Header
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}
	ca := write(t, t.TempDir(), "ca", s.caPEM(), 0o644)
	admin, err := Dial(Options{Kubeconfig: s.kubeconfigOf(ca)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(c *Client) (string, error) {
		last = nil
		err := c.Get(t.Context(), clientMounts, "c1", "a", nil)
		return last.Get("Authorization") + last.Get("Impersonate-User"), err
	}
	if got, err := ask(admin); got != "Bearer administratorsomebody" || err != nil {
		t.Errorf("administrator: %q %v", got, err)
	}
	if got, err := admin.Authority(); string(got) != s.caPEM() || err != nil {
		t.Errorf("authority: %q %v", got, err)
	}
	tests := []struct {
		name string
		id   Identity
		want string // in the error
	}{
		{"same address", Identity{Token: "t", CA: []byte(s.caPEM())}, ""},
		{"own address", Identity{Token: "t", CA: []byte(s.caPEM()), Host: "127.0.0.1", Port: s.URL[strings.LastIndexByte(s.URL, ':')+1:]}, ""},
		{"dead address", Identity{Token: "t", CA: []byte(s.caPEM()), Host: "::1", Port: "1"}, "https://[::1]:1"},
		{"other CA", Identity{Token: "t", CA: []byte(otherCA(t))}, "is the CA certificate that of this cluster?"},
	}
	for _, tt := range tests {
		c, err := admin.As(tt.id)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ask(c)
		if tt.want == "" && (err != nil || got != "Bearer t") {
			t.Errorf("%s: %q %v", tt.name, got, err)
		}
		if tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, bad := range []Identity{{Host: "h"}, {Host: "https://h", Port: "1"}, {Host: "h", Port: "x"}, {CA: []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")}} {
		if _, err := admin.As(bad); err == nil {
			t.Errorf("%+v was accepted", bad)
		}
	}
}

func TestContext(t *testing.T) {
	s := newServer(t)
	file := s.kubeconfigOf(write(t, t.TempDir(), "ca", s.caPEM(), 0o644))
	for context, want := range map[string]string{"": s.URL, "here": s.URL, "there": "https://other.invalid"} {
		c, err := Dial(Options{Kubeconfig: file, Context: context})
		if err != nil || c.Address() != want {
			t.Errorf("%q: %v", context, err)
		}
	}
	_, err := Dial(Options{Kubeconfig: file, Context: "nowhere"})
	if err == nil || !strings.Contains(err.Error(), `no context "nowhere", there is here, there`) {
		t.Errorf("got %v", err)
	}
	home := t.TempDir()
	environ := func(values ...string) func(string) string {
		return func(name string) string {
			for i := 0; i < len(values); i += 2 {
				if values[i] == name {
					return values[i+1]
				}
			}
			return ""
		}
	}
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Kubeconfig: file}, "here"},
		{Options{Kubeconfig: file, Context: "there"}, "there"},
		{Options{Environ: environ("KUBECONFIG", "/none:"+file)}, "here"},
		{Options{Environ: environ("HOME", home)}, ""},
	} {
		if got := CurrentContext(tt.o); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
	if _, err := Dial(Options{Environ: environ("HOME", home)}); !errors.Is(err, ErrNotConfigured) {
		t.Errorf("nothing configured: %v", err)
	}
}

// The core of Kubernetes is at another path, and tokens are made below accounts.
func TestCoreRequests(t *testing.T) {
	s := newServer(t)
	var last string
	s.other = func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		last = r.Method + " " + r.URL.Path + " " + string(body)
		if r.Method == http.MethodGet {
			sendStatus(w, http.StatusForbidden, "Forbidden", "no RBAC", nil)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, "{}")
	}
	c := s.dial()
	err := c.CreateFor(t.Context(), Resource{Version: "v1", Plural: "serviceaccounts", Kind: "ServiceAccount"}, "n", "a", "token", map[string]int{"x": 1}, nil)
	if want := `POST /api/v1/namespaces/n/serviceaccounts/a/token {"x":1}`; last != want || err != nil {
		t.Errorf("%q %v", last, err)
	}
	err = c.Get(t.Context(), Resource{Version: "v1", Plural: "secrets", Kind: "Secret"}, "n", "a", nil)
	if err == nil || last != "GET /api/v1/namespaces/n/secrets/a " || !strings.Contains(err.Error(), "may not get secrets in namespace") {
		t.Errorf("%q %v", last, err)
	}
}
