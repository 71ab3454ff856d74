package kube

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
)

// Each layer below a request is reported separately, so that a reader sees which one fails.
func TestConnect(t *testing.T) {
	closed := func(o *Options) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, o.Port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	silent := func(o *Options) { // accepts connections, and never answers
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		_, o.Port, _ = net.SplitHostPort(l.Addr().String())
	}
	plain := func(o *Options) {
		p := httptest.NewServer(http.NotFoundHandler())
		t.Cleanup(p.Close)
		_, o.Port, _ = net.SplitHostPort(p.Listener.Addr().String())
	}
	other := func(o *Options) {
		if err := os.WriteFile(o.CertFile, []byte(otherCA(t)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name                            string
		change                          func(*Options)
		looked, connected, secured, got bool
	}{
		{"fine", func(*Options) {}, true, true, true, true},
		{"name", func(o *Options) { o.Host = "no-such-host.invalid" }, false, false, false, false},
		{"closed port", closed, true, false, false, false},
		{"silent", silent, true, true, false, false},
		{"not TLS", plain, true, true, false, false},
		{"other CA", other, true, true, false, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.other = func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
				if r.URL.Path != "/version" {
					t.Errorf("requested %s", r.URL)
				}
			}
			c := s.dial(tt.change)
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n := c.Connect(ctx)
			if (n.Lookup == nil) != tt.looked || n.Connected() != tt.connected || n.Secured != tt.secured || (n.Status == 200) != tt.got || (n.Err == nil) != tt.got {
				t.Fatalf("%+v", n)
			}
			if tt.got && (n.Date.Year() != 2006 || n.Expires.Before(time.Now()) || n.Local.IsZero()) {
				t.Errorf("%+v", n)
			}
			if n.WrongAuthority() != (tt.name == "other CA") {
				t.Errorf("wrong authority: %v", n.Handshake)
			}
			if n.IsAddress() != (tt.name != "name") || n.Port == "" || !strings.HasPrefix(n.Server, "https://") {
				t.Errorf("%+v", n)
			}
		})
	}
}

// The proxy in the environment of the options is used, not that of this process.
func TestConnectByProxy(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://127.0.0.1:1")
	s := newServer(t)
	var asked string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.Host
		w.WriteHeader(http.StatusBadGateway)
	}))
	t.Cleanup(proxy.Close)
	c := s.dial(func(o *Options) {
		o.Host = "api.example" // a proxy is never used for this machine
		o.Environ = func(name string) string {
			return map[string]string{"HTTPS_PROXY": strings.Replace(proxy.URL, "http://", "http://user:secret@", 1)}[name]
		}
	})
	n := c.Connect(t.Context())
	if asked != "CONNECT api.example:"+c.o.Port || n.Proxy != proxy.Listener.Addr().String() || n.Host != "127.0.0.1" || !n.Connected() || n.Secured || n.Err == nil {
		t.Errorf("asked %q: %+v", asked, n)
	}
}

func TestExpires(t *testing.T) {
	s := newServer(t)
	c := s.dial()
	if !c.Expires().IsZero() || c.Source() != "token file "+c.config.BearerTokenFile {
		t.Errorf("%v %s", c.Expires(), c.Source())
	}
	as, err := c.As(Identity{Token: "x.eyJleHAiOjE3MDAwMDAwMDB9.x", CA: []byte(s.caPEM())})
	if err != nil {
		t.Fatal(err)
	}
	if got := as.Expires().Unix(); got != 1700000000 {
		t.Errorf("expires at %d", got)
	}
}

func TestAccess(t *testing.T) {
	s := newServer(t)
	s.other = func(w http.ResponseWriter, r *http.Request) {
		var review struct {
			Kind string
			Spec struct{ ResourceAttributes map[string]string }
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			t.Error(err)
		}
		at := review.Spec.ResourceAttributes
		switch {
		case review.Kind == "SelfSubjectReview":
			_, _ = w.Write([]byte(`{"status":{"userInfo":{"username":"me"}}}`))
		case at["verb"] == "watch":
			sendStatus(w, 500, metav1.StatusReasonInternalError, "broken", nil)
		case at["verb"] == "get" && at["group"] == "g" && at["resource"] == "r" && at["subresource"] == "status" && at["namespace"] == "n":
			_, _ = w.Write([]byte(`{"status":{"allowed":true}}`))
		default:
			_, _ = w.Write([]byte(`{"status":{"allowed":false}}`))
		}
	}
	c := s.dial()
	if who, err := c.WhoAmI(t.Context()); who != "me" || err != nil {
		t.Errorf("%q %v", who, err)
	}
	get := api.Permission{Verb: "get", Group: "g", Resource: "r", Subresource: "status", Namespace: "n"}
	everywhere, watch := get, get
	everywhere.Namespace, watch.Verb = "", "watch"
	if got, err := c.Allowed(t.Context(), []api.Permission{get, everywhere}); err != nil || len(got) != 2 || !got[0] || got[1] {
		t.Errorf("%v %v", got, err)
	}
	if _, err := c.Allowed(t.Context(), []api.Permission{get, watch}); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("%v", err)
	}
	s.other = func(w http.ResponseWriter, _ *http.Request) {
		sendStatus(w, 404, metav1.StatusReasonNotFound, "the server could not find the requested resource", nil)
	}
	if who, err := c.WhoAmI(t.Context()); who != "" || err != nil {
		t.Errorf("an old server: %q %v", who, err)
	}
}
