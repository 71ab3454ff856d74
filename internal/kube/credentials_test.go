package kube

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// otherCA returns a certificate in PEM that no server here uses.
func otherCA(t *testing.T) string {
	t.Helper()
	_, text := serverCert(t)
	return text
}

// The start of these texts and the order of the checks are fixed.
func TestExplicitCredentials(t *testing.T) {
	dir := t.TempDir()
	token := write(t, dir, "token", jwt(account)+"\n", 0o600)
	open := write(t, dir, "open", "abc", 0o644)
	empty := write(t, dir, "empty", " \n", 0o600)
	lines := write(t, dir, "lines", "abc\r\nX-Evil: 1", 0o600)
	large := write(t, dir, "large", strings.Repeat("x", maxTokenFile+1), 0o600)
	cert := write(t, dir, "cert", otherCA(t), 0o644)
	garbage := write(t, dir, "garbage", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0o644)
	pipe := filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "missing")
	tests := []struct {
		name, host, port, token, cert string
		want                          string // start of the error, "" for none
		hint                          string
		strict                        bool
	}{
		{name: "good", host: "h", port: "6443", token: token, cert: cert},
		{name: "IPv6", host: "fd00::1", port: "6443", token: token, cert: cert},
		{name: "IPv6 in brackets", host: "[fd00::1]", port: "6443", token: token, cert: cert},
		{name: "no port", host: "h", want: "kubernetes service host/port not defined", hint: "port"},
		{name: "no host", port: "1", token: missing, want: "kubernetes service host/port not defined", hint: "host"},
		{name: "URL", host: "https://h:6443", port: "6443", token: token, cert: cert, want: "kubernetes service host/port not valid", hint: "URL"},
		{name: "host and port in one", host: "h:6443", port: "6443", token: token, cert: cert, want: "kubernetes service host/port not valid", hint: "separately"},
		{name: "host with a path", host: "h/x", port: "6443", token: token, cert: cert, want: "kubernetes service host/port not valid"},
		{name: "port is a name", host: "h", port: "https", token: token, cert: cert, want: "kubernetes service host/port not valid", hint: "65535"},
		{name: "no token option", host: "h", port: "1", cert: missing, want: "DWS client mount service token not defined"},
		{name: "token missing", host: "h", port: "1", token: missing, cert: missing, want: "DWS client mount service token failed to read", hint: missing},
		{name: "token empty", host: "h", port: "1", token: empty, cert: cert, want: "DWS client mount service token failed to read", hint: "empty"},
		{name: "token with lines", host: "h", port: "1", token: lines, cert: cert, want: "DWS client mount service token failed to read"},
		{name: "token too large", host: "h", port: "1", token: large, cert: cert, want: "DWS client mount service token failed to read", hint: "larger"},
		{name: "token is a directory", host: "h", port: "1", token: dir, cert: cert, want: "DWS client mount service token failed to read"},
		{name: "token is a pipe", host: "h", port: "1", token: pipe, cert: cert, want: "DWS client mount service token failed to read", hint: "regular file"},
		{name: "token open", host: "h", port: "1", token: open, cert: cert},
		{name: "token open, strict", host: "h", port: "1", token: open, cert: cert, strict: true, want: "DWS client mount service token failed to read", hint: "chmod 0600"},
		{name: "no cert option", host: "h", port: "1", token: token, want: "DWS client mount service certificate file not defined"},
		{name: "cert missing", host: "h", port: "1", token: token, cert: missing, want: "DWS client mount service certificate invalid", hint: missing},
		{name: "cert is not PEM", host: "h", port: "1", token: token, cert: token, want: "DWS client mount service certificate invalid", hint: "no PEM certificate"},
		{name: "cert broken", host: "h", port: "1", token: token, cert: garbage, want: "DWS client mount service certificate invalid"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			c, err := Dial(Options{Host: tt.host, Port: tt.port, TokenFile: tt.token, CertFile: tt.cert, Strict: tt.strict,
				Log: slog.New(slog.NewTextHandler(&log, nil))})
			switch {
			case tt.want == "" && err != nil:
				t.Fatal(err)
			case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.hint)):
				t.Fatalf("got %v, want %q … %q", err, tt.want, tt.hint)
			}
			if warned := strings.Contains(log.String(), "chmod 0600"); warned != (tt.token == open && !tt.strict) {
				t.Errorf("log: %s", log.String())
			}
			if c != nil && strings.HasPrefix(tt.name, "IPv6") && c.Address() != "https://[fd00::1]:6443" {
				t.Errorf("address %s", c.Address())
			}
		})
	}
}

func TestOwnServiceName(t *testing.T) {
	_, err := Dial(Options{Host: "h", Port: "1", Service: "data movement service"})
	if err == nil || !strings.HasPrefix(err.Error(), "data movement service token not defined") {
		t.Errorf("got %v", err)
	}
}

func TestInvalidOptions(t *testing.T) {
	for _, o := range []Options{{Timeout: -1}, {MinWatchTimeout: time.Millisecond}, {Burst: -1}} {
		if _, err := Dial(o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestKubeconfigDiscovery(t *testing.T) {
	home := t.TempDir()
	conf := func(dir, server string) string {
		return write(t, dir, "config", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server, jwt("admin")), 0o600)
	}
	if err := os.Mkdir(home+"/.kube", 0o700); err != nil {
		t.Fatal(err)
	}
	conf(home+"/.kube", "https://home:1")
	flag, env := conf(t.TempDir(), "https://flag:1"), conf(t.TempDir(), "https://env:1")
	broken := write(t, t.TempDir(), "config", "clusters: 7", 0o600)
	tests := []struct {
		name, flag string
		env        map[string]string
		want       string
		err        string
	}{
		{"flag first", flag, map[string]string{"KUBECONFIG": env, "HOME": home}, "https://flag:1", ""},
		{"then the environment", "", map[string]string{"KUBECONFIG": env, "HOME": home}, "https://env:1", ""},
		{"a list of files", "", map[string]string{"KUBECONFIG": "/nonexistent:" + env}, "https://env:1", ""},
		{"then home", "", map[string]string{"HOME": home}, "https://home:1", ""},
		{"nothing", "", map[string]string{"HOME": "/nonexistent"}, "", "no API server configured"},
		{"named but missing", "/nonexistent/config", map[string]string{"HOME": home}, "", "/nonexistent/config"},
		{"broken", broken, nil, "", broken},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Dial(Options{Kubeconfig: tt.flag, Environ: func(k string) string { return tt.env[k] }})
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("got %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if c.Address() != tt.want || c.Account() != "admin" {
				t.Errorf("address %q, account %q", c.Address(), c.Account())
			}
		})
	}
}

func TestAccount(t *testing.T) {
	for token, want := range map[string]string{
		jwt(account): account, "opaque": "", "a.b.c": "", "..": "", jwt("x\ny"): "", jwt(strings.Repeat("x", 300)): "",
	} {
		if got := accountOfToken(token); got != want {
			t.Errorf("%q: %q, want %q", token, got, want)
		}
	}
	if got := accountOfCert([]byte(otherCA(t))); got != "api" {
		t.Errorf("certificate: %q", got)
	}
}

func TestNodeName(t *testing.T) {
	broken := errors.New("broken")
	tests := []struct {
		explicit, host string
		err            error
		want           string
		fails          bool
	}{
		{"", "c1", nil, "c1", false},
		{"", "c1.example.org", nil, "c1", false},
		{"c1.example.org", "c2", nil, "c1.example.org", false},
		{"c1", "", broken, "c1", false},
		{"", "", broken, "", true},
		{"", "", nil, "", true},
		{"", ".x", nil, "", true},
	}
	for _, tt := range tests {
		got, err := NodeName(tt.explicit, func() (string, error) { return tt.host, tt.err })
		if got != tt.want || (err != nil) != tt.fails || (tt.err != nil && tt.fails && !errors.Is(err, tt.err)) {
			t.Errorf("%+v: %q, %v", tt, got, err)
		}
	}
}

// kubeconfigOf returns the kubeconfig of an administrator, with two contexts.
func (s *apiServer) kubeconfigOf(ca string) string {
	return write(s.t, s.t.TempDir(), "config", fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "here",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}, {"name": "d", "cluster": {"server": "https://other.invalid"}}],
		"users": [{"name": "u", "user": {"token": "administrator", "as": "another-user"}}],
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
	if got, err := ask(admin); got != "Bearer administratoranother-user" || err != nil {
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
		{"other CA", Identity{Token: "t", CA: []byte(otherCA(t))}, "check that the CA certificate is that of this cluster"},
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
	if err == nil || !strings.Contains(err.Error(), `no context "nowhere", available contexts: here, there`) {
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

// The core API has another path, and tokens are a subresource of accounts.
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
