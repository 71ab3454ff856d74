package lab

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"syscall"
	"testing"
	"time"
)

// apiServer responds with the properties of the request, and to a watch with one event.
func apiServer(t *testing.T) *httptest.Server {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") != "" {
			fmt.Fprintln(w, `{"type":"ADDED","object":{"metadata":{"name":"a"}}}`)
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			return
		}
		body, _ := io.ReadAll(r.Body)
		_ = json.NewEncoder(w).Encode(map[string]any{
			"proto": r.Proto, "auth": r.Header.Get("Authorization"), "path": r.URL.Path, "body": string(body),
		})
	}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func newProxy(t *testing.T) (*Proxy, *http.Client) {
	t.Helper()
	s := apiServer(t)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	p, err := StartProxy(s.URL, ca)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, clientOf(t, p.CA())
}

func clientOf(t *testing.T, ca []byte) *http.Client {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatal("no certificate")
	}
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

const mounts = "/apis/dataworkflowservices.github.io/v1alpha7/namespaces/compute-01/clientmounts"

func (p *Proxy) get(ctx context.Context, c *http.Client, path string) (*http.Response, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+p.Address+path, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, string(body), err
}

func TestProxyForwardsAndCounts(t *testing.T) {
	p, c := newProxy(t)
	resp, body, err := p.get(t.Context(), c, mounts+"/a")
	if err != nil {
		t.Fatal(err)
	}
	if resp.Proto != "HTTP/2.0" || !strings.Contains(body, `"proto":"HTTP/2.0"`) || !strings.Contains(body, "Bearer secret") {
		t.Errorf("%s %s", resp.Proto, body)
	}
	req, _ := http.NewRequest(http.MethodPatch, "https://"+p.Address+mounts+"/a/status", strings.NewReader(`{"status":{}}`))
	req.Header.Set("Content-Type", mergePatch)
	if resp, err = c.Do(req); err != nil {
		t.Fatal(err)
	}
	data, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !bytes.Contains(data, []byte(`{\"status\":{}}`)) {
		t.Errorf("the body is not forwarded: %s", data)
	}
	if p.Count() != 2 || p.Count(ClassGet) != 1 || p.Count(ClassPatchStatus) != 1 {
		t.Errorf("%d requests", p.Count())
	}
	last := p.Requests()[1]
	if string(last.Body) != `{"status":{}}` || last.Code() != 200 || last.ContentType != mergePatch || last.Sent() != int64(len(data)) {
		t.Errorf("%+v", last)
	}
}

func TestClass(t *testing.T) {
	for _, tt := range []struct{ method, url, want string }{
		{"GET", "/api", ClassDiscovery},
		{"GET", "/apis", ClassDiscovery},
		{"GET", "/apis/nnf.cray.hpe.com", ClassDiscovery},
		{"GET", "/apis/nnf.cray.hpe.com/v1alpha11", ClassDiscovery},
		{"GET", "/version", ClassDiscovery},
		{"GET", "/healthz", ClassOther},
		{"GET", "/api/v1/namespaces", ClassList},
		{"GET", "/api/v1/namespaces/default", ClassGet},
		{"GET", mounts, ClassList},
		{"GET", mounts + "?resourceVersion=1&watch=true", ClassWatch},
		{"GET", mounts + "?watch=0", ClassList},
		{"GET", mounts + "/a", ClassGet},
		{"POST", mounts, ClassCreate},
		{"PUT", mounts + "/a", ClassUpdate},
		{"PATCH", mounts + "/a", ClassPatchObject},
		{"PATCH", mounts + "/a/status", ClassPatchStatus},
		{"DELETE", mounts + "/a", ClassDelete},
	} {
		if got := Class(httptest.NewRequest(tt.method, tt.url, nil)); got != tt.want {
			t.Errorf("%s %s: %s, want %s", tt.method, tt.url, got, tt.want)
		}
	}
}

func TestProxyRules(t *testing.T) {
	p, c := newProxy(t)
	p.Set(Rule{Class: ClassList, Code: 429, RetryAfter: 7, Times: 1})
	resp, body, err := p.get(t.Context(), c, mounts)
	if err != nil || resp.StatusCode != 429 || resp.Header.Get("Retry-After") != "7" || !strings.Contains(body, "TooManyRequests") {
		t.Errorf("%v %s %v", resp, body, err)
	}
	if resp, _, err := p.get(t.Context(), c, mounts); err != nil || resp.StatusCode != 200 {
		t.Errorf("the rule is used twice: %v", err)
	}
	p.Set(Rule{Class: ClassWatch, Code: 410, ErrorEvent: true, Times: 1})
	resp, body, err = p.get(t.Context(), c, mounts+"?watch=1&resourceVersion=5")
	if err != nil || resp.StatusCode != 200 || !strings.Contains(body, `"type":"ERROR"`) || !strings.Contains(body, `"code":410`) {
		t.Errorf("%v %s %v", resp, body, err)
	}
	if got := p.Requests()[2].ResourceVersion; got != "5" {
		t.Errorf("resource version %q", got)
	}
	for _, reset := range []bool{false, true} {
		p.Set(Rule{Class: ClassWatch, CutAfter: 20, Reset: reset, Times: 1})
		_, body, err = p.get(t.Context(), c, mounts+"?watch=1")
		if err == nil || body != `{"type":"ADDED","obj` && !reset {
			t.Errorf("cut: %q %v", body, err)
		}
	}
	start := time.Now()
	p.Set(Rule{Delay: 60 * time.Millisecond, Times: 1})
	if _, _, err := p.get(t.Context(), c, mounts); err != nil || time.Since(start) < 60*time.Millisecond {
		t.Errorf("not delayed: %v", err)
	}
	p.Set(Rule{Code: 403})
	p.Clear()
	if resp, _, err := p.get(t.Context(), c, mounts); err != nil || resp.StatusCode != 200 {
		t.Errorf("after Clear: %v", err)
	}
}

func TestProxyBreaksConnections(t *testing.T) {
	p, c := newProxy(t)
	ok := func(when string) {
		t.Helper()
		fresh := clientOf(t, p.CA()) // the old client may not have noticed the broken connection
		if _, _, err := p.get(t.Context(), fresh, mounts); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	watch := make(chan error, 1)
	startWatch := func() {
		p.ClearRequests()
		go func() { _, _, err := p.get(t.Context(), c, mounts+"?watch=1"); watch <- err }()
		if _, err := p.WaitRequest(soon(t), func(r *Request) bool { return r.Class == ClassWatch }); err != nil {
			t.Fatal(err)
		}
	}
	startWatch()
	p.Reset()
	if err := <-watch; err == nil {
		t.Error("the watch survived a reset")
	}
	ok("after a reset")

	startWatch()
	p.Refuse()
	if err := <-watch; err == nil {
		t.Error("the watch survived a refusal")
	}
	if _, _, err := p.get(t.Context(), c, mounts); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("refused: %v", err)
	}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	ok("after Accept on the same port")

	p.Down(true)
	if conn, err := net.Dial("tcp", p.Address); err != nil {
		t.Errorf("down must still accept: %v", err)
	} else if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("down must close the connection")
	}
	p.Down(false)
	ok("after Down")

	p.HalfOpen(true)
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, _, err := p.get(short, c, mounts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("half open: %v", err)
	}
	if p.Connections() == 0 {
		t.Error("half open closed the connection")
	}
	p.HalfOpen(false)
	ok("after HalfOpen")

	old := p.CA()
	fresh, err := p.SwapCA()
	if err != nil || bytes.Equal(old, fresh) || !bytes.Equal(fresh, p.CA()) {
		t.Fatal("no new authority", err)
	}
	var unknown *tls.CertificateVerificationError
	if _, _, err := p.get(t.Context(), clientOf(t, old), mounts); !errors.As(err, &unknown) {
		t.Errorf("the old authority is still valid: %v", err)
	}
	ok("with the new authority")
}
