package kube

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

var clientMounts = Resource{Group: "dataworkflowservices.github.io", Version: "v1alpha7", Plural: "clientmounts", Kind: "ClientMount"}

// apiServer is a fake API server that simulates failures. It logs the requests, which
// tests compare.
type apiServer struct {
	*httptest.Server
	t *testing.T

	mu     sync.Mutex
	log    []string
	list   func(w http.ResponseWriter, r *http.Request)
	watch  []func(w http.ResponseWriter, r *http.Request) // one per watch request; the last one is repeated
	other  http.HandlerFunc
	tokens map[string]bool // nil: any
}

func newServer(t *testing.T) *apiServer {
	t.Helper()
	s := &apiServer{t: t}
	s.list = s.sendList("10")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.EnableHTTP2 = true
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	kind := r.Method + " " + r.URL.Path
	isWatch := q.Get("watch") == "true"
	isList := strings.HasSuffix(r.URL.Path, "/clientmounts") && r.Method == "GET" && !isWatch
	switch {
	case isWatch:
		kind = "watch " + q.Get("resourceVersion")
		if q.Get("sendInitialEvents") == "true" {
			kind = "stream " + q.Get("resourceVersion")
		}
	case isList:
		kind = "list " + q.Get("resourceVersion")
	}
	s.mu.Lock()
	s.log = append(s.log, kind)
	refused := s.tokens != nil && !s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	h := s.other
	if isList {
		h = s.list
	}
	if isWatch {
		h = s.watch[0]
		if len(s.watch) > 1 {
			s.watch = s.watch[1:]
		}
	}
	s.mu.Unlock()
	if refused {
		sendStatus(w, 401, metav1.StatusReasonUnauthorized, "Unauthorized", nil)
		return
	}
	h(w, r)
}

// requests returns the log.
func (s *apiServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.log...)
}

func (s *apiServer) count(prefix string) (n int) {
	for _, l := range s.requests() {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

func (s *apiServer) sendList(rv string, names ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		var items []string
		for _, n := range names {
			items = append(items, object(n, rv))
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"ClientMountList","metadata":{"resourceVersion":%q},"items":[%s]}`, rv, strings.Join(items, ","))
	}
}

func object(name, rv string) string {
	return fmt.Sprintf(`{"metadata":{"name":%q,"namespace":"c1","resourceVersion":%q,"managedFields":[{"manager":"m"}]},"spec":{"node":"c1","desiredState":"mounted"}}`, name, rv)
}

func event(kind, name, rv string) string {
	return fmt.Sprintf(`{"type":%q,"object":%s}`+"\n", kind, object(name, rv))
}

func errorEvent(code int, reason metav1.StatusReason) string {
	return fmt.Sprintf(`{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q,"message":"said the server"}}`+"\n", code, reason)
}

// sendFrames starts a watch, sends text, and then keeps the watch open (end is "hold"),
// ends it ("eof"), or closes the connection ("cut").
func sendFrames(end, text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(200)
		fmt.Fprint(w, text)
		w.(http.Flusher).Flush()
		switch end {
		case "hold":
			<-r.Context().Done()
		case "cut":
			panic(http.ErrAbortHandler)
		}
	}
}

// initialEnd returns the bookmark at the end of the initial state of a stream.
func initialEnd(rv string) string {
	return fmt.Sprintf(`{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":%q,"annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n", rv)
}

// sendBoth responds to a stream with text as the initial state, and to any other watch
// with the events of text. The watch stays open.
func sendBoth(text, rv string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := text
		if r.URL.Query().Get("sendInitialEvents") == "true" {
			out += initialEnd(rv)
		}
		sendFrames("hold", out)(w, r)
	}
}

func sendStatus(w http.ResponseWriter, code int, reason metav1.StatusReason, msg string, d *metav1.StatusDetails) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status: "Failure", Code: int32(code), Reason: reason, Message: msg, Details: d})
}

// write writes a file to the directory of the test.
func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	p := filepath.Join(dir, name)
	if err := os.WriteFile(p, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return p
}

func (s *apiServer) caPEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

func (s *apiServer) options() Options {
	s.t.Helper()
	u, _ := url.Parse(s.URL)
	host, port, _ := net.SplitHostPort(u.Host)
	dir := s.t.TempDir()
	return Options{Host: host, Port: port, Timeout: 5 * time.Second,
		TokenFile: write(s.t, dir, "token", jwt("system:serviceaccount:nnf-system:nnf-clientmount"), 0o600),
		CertFile:  write(s.t, dir, "cert", s.caPEM(), 0o644),
		QPS:       -1,
	}
}

func (s *apiServer) dial(change ...func(*Options)) *Client {
	s.t.Helper()
	o := s.options()
	for _, f := range change {
		f(&o)
	}
	c, err := Dial(o)
	if err != nil {
		s.t.Fatal(err)
	}
	short := span{2 * time.Millisecond, 4 * time.Millisecond}
	c.times.retry, c.times.lost, c.times.busy = short, short, short
	return c
}

// seen records the calls of a Handler and of OnState, as lines on a channel.
type seen struct {
	lines  chan string
	cancel context.CancelFunc
	done   chan error
}

func (s *apiServer) start(c *Client, o WatchOptions) *seen {
	ctx, cancel := context.WithCancel(context.Background())
	v := &seen{lines: make(chan string, 1000), cancel: cancel, done: make(chan error, 1)}
	o.OnState = func(st State) {
		line := "down"
		if st.Connected {
			line = "up"
		}
		if !st.Synced {
			line += " unsynced"
		}
		v.lines <- line
	}
	h := Handler[dws.ClientMount]{
		Replace: func(items []*dws.ClientMount) {
			names := []string{"replace"}
			for _, i := range items {
				names = append(names, i.Name)
				if len(i.ManagedFields) > 0 {
					s.t.Error("managed fields were kept")
				}
			}
			v.lines <- strings.Join(names, " ")
		},
		Upsert:    func(m *dws.ClientMount) { v.lines <- "upsert " + m.Name },
		Delete:    func(_, name string) { v.lines <- "delete " + name },
		Malformed: func(_, name string, _ error) { v.lines <- "malformed " + name },
	}
	go func() { v.done <- Watch(ctx, c, clientMounts, "c1", o, h) }()
	s.t.Cleanup(func() {
		cancel()
		select {
		case <-v.done:
		case <-time.After(10 * time.Second):
			s.t.Error("Watch did not end")
		}
	})
	return v
}

// want reads lines until want, and fails the test if it reads one of never.
func (v *seen) want(t *testing.T, want string, never ...string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	var got []string
	for {
		select {
		case l := <-v.lines:
			got = append(got, l)
			for _, n := range never {
				if strings.HasPrefix(l, n) {
					t.Fatalf("got %q while waiting for %q", got, want)
				}
			}
			if l == want {
				return
			}
		case <-deadline:
			t.Fatalf("no %q, got %q", want, got)
		}
	}
}

// newServerAt restarts old at its address.
func newServerAt(t *testing.T, addr string, old *apiServer) *apiServer {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &apiServer{t: t, list: old.list, watch: old.watch}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Listener.Close()
	s.Listener, s.EnableHTTP2, s.TLS = l, true, nil
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// jwt returns an unsigned token of an account.
func jwt(sub string) string {
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"none"}`)) + "." + enc(fmt.Appendf(nil, `{"sub":%q}`, sub)) + "." + enc([]byte("x"))
}

// Nothing may run in the background after a watch has ended, because it would disturb the
// jobs on a node.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
