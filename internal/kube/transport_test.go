package kube

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

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
