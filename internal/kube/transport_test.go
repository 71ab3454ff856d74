package kube

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/klog/v2"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Records of client-go's global log must be at level debug, and its verbose records, which
// contain request bodies, must be dropped.
func TestQuietKlog(t *testing.T) {
	t.Cleanup(klog.ClearLogger)
	var out bytes.Buffer
	level := new(slog.LevelVar)
	redirectKlog(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: level})).With("part", "kube"))

	say := func() {
		log := klog.Background().WithName("reflector").WithValues("type", "ClientMount")
		log.V(2).Info("Request Body", "body", "secret")
		log.V(1).Info("Feature gate default state")
		klog.V(6).Info("chatter")
		log.Info("contextual")
		klog.Warning("warning")
		klog.ErrorS(errors.New("refused"), "error", "url", "https://x")
	}
	say()
	if out.Len() > 0 {
		t.Errorf("logged above debug level: %s", &out)
	}
	level.Set(slog.LevelDebug)
	say()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{"msg=contextual", "msg=warning", "err=refused"}
	if len(lines) != len(want) {
		t.Fatalf("%d lines, want %d: %s", len(lines), len(want), &out)
	}
	for i, w := range want {
		if !strings.Contains(lines[i], "level=DEBUG") || !strings.Contains(lines[i], w) || !strings.Contains(lines[i], "part=kube") || !strings.Contains(lines[i], "from=client-go") {
			t.Errorf("line %d: %s", i, lines[i])
		}
	}
	if !strings.Contains(lines[0], "type=ClientMount") || !strings.Contains(lines[2], "its_level=ERROR") {
		t.Errorf("the original level is lost: %s", &out)
	}
}

// Requests that the server has rejected together are not repeated together, and watches are not
// delayed here.
func TestRetryAfterIsSpread(t *testing.T) {
	var code int
	var asked string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked != "" {
			w.Header().Set("Retry-After", asked)
		}
		w.WriteHeader(code)
	}))
	t.Cleanup(server.Close)
	var delays []time.Duration
	c := &caTransport{now: new(http.Transport), pause: func(_ context.Context, d time.Duration) { delays = append(delays, d) }}
	t.Cleanup(c.now.CloseIdleConnections)
	for _, tt := range []struct {
		code        int
		asked, path string
		longest     time.Duration // 0: no delay
	}{
		{429, "1", "/apis", time.Second},
		{429, "4", "/apis", longestSpread},
		{503, "4", "/apis", longestSpread},
		{429, "1", "/apis?watch=true", 0},
		{429, "0", "/apis", 0},
		{429, "", "/apis", 0},
		{429, "soon", "/apis", 0},
		{200, "4", "/apis", 0},
		{404, "4", "/apis", 0},
		{429, "86400", "/apis", longestSpread},
	} {
		delays, code, asked = nil, tt.code, tt.asked
		for range 100 {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := c.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if tt.longest == 0 {
			if len(delays) > 0 {
				t.Errorf("%+v: delays %v", tt, delays)
			}
			continue
		}
		if least, most := slices.Min(delays), slices.Max(delays); len(delays) != 100 || least > tt.longest/4 || most < tt.longest*3/4 || most >= tt.longest {
			t.Errorf("%+v: %d delays from %v to %v", tt, len(delays), least, most)
		}
	}
	// The response must arrive before the time limit of the request.
	delays, code, asked = nil, 429, "20"
	ctx, cancel := context.WithTimeout(t.Context(), 21*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.URL+"/apis", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.RoundTrip(req)
	if err != nil || len(delays) > 0 {
		t.Fatalf("near the time limit: %v, %v", delays, err)
	}
	resp.Body.Close()
}

type countingConn struct {
	net.Conn
	written *atomic.Int64
}

func (c countingConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// Measurements see each request, and the bytes of each connection.
func TestWrappers(t *testing.T) {
	s := newServer(t)
	s.list = s.sendList("10", "a")
	var requests, connections, written atomic.Int64
	c := s.dial(func(o *Options) {
		o.WrapTransport = func(base http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				requests.Add(1)
				return base.RoundTrip(r)
			})
		}
		o.WrapConn = func(conn net.Conn) net.Conn {
			connections.Add(1)
			return countingConn{conn, &written}
		}
	})
	for range 2 {
		if _, err := List[dws.ClientMount](t.Context(), c, clientMounts, "c1", ""); err != nil {
			t.Fatal(err)
		}
	}
	if requests.Load() != 2 || connections.Load() != 1 || written.Load() < 200 {
		t.Errorf("%d requests, %d connections, %d bytes written", requests.Load(), connections.Load(), written.Load())
	}
}
