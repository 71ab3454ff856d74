package server

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// fakeSocket is a socket whose accept loop responds to Probe, or not.
type fakeSocket struct{ err error }

func (d fakeSocket) Probe(ctx context.Context) error {
	if d.err != nil {
		<-ctx.Done()
		return d.err
	}
	return nil
}

func TestSelfCheck(t *testing.T) {
	idle := unixsocket.NewIdle(0, func() {})
	r := startServer(t, func(o *Options) { o.Idle = idle })
	check := r.check
	for range 3 {
		if err := check.Probe(within(t, soon)); err != nil {
			t.Fatal(err)
		}
	}
	if open, _ := r.connections.InUse(uint32(os.Getuid())); open != 0 || r.log.count("refused") != 0 {
		t.Errorf("the check takes %d connections: %d refusals", open, r.log.count("refused"))
	}
	// After the shutdown has started, only its own time limit applies, while a request is
	// still running.
	conn := r.dial(t)
	held, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true}, "/datamovement.DataMover/Create")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(within(t, soon), new(grpc_health_v1.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
	defer held.CloseSend()
	r.stop()
	select {
	case <-check.over:
	case <-time.After(soon / 2):
		t.Error("the checks continue during the shutdown")
	}
	if err := check.Probe(within(t, soon)); err != nil {
		t.Errorf("during the shutdown: %v", err)
	}
}

// The error identifies the part that does not respond.
func TestSelfCheckFails(t *testing.T) {
	wide := errors.New("still waiting")
	late := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, wide)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("accept loop", func(t *testing.T) {
		p := NewSelfCheck(fakeSocket{err: wide})
		if err := p.Probe(late(t)); !errors.Is(err, wide) || !strings.Contains(err.Error(), "does not accept connections") {
			t.Error(err)
		}
	})
	t.Run("no server", func(t *testing.T) {
		p := NewSelfCheck(fakeSocket{})
		if err := p.Probe(late(t)); err == nil || !strings.Contains(err.Error(), "does not respond") {
			t.Error(err)
		}
	})
	t.Run("server does not respond", func(t *testing.T) {
		p := NewSelfCheck(fakeSocket{})
		defer p.inside.Close()
		go func() {
			for {
				c, err := p.inside.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					for b := make([]byte, 100); ; {
						if _, err := c.Read(b); err != nil {
							return
						}
					}
				}()
			}
		}()
		if err := p.Probe(late(t)); err == nil || !strings.Contains(err.Error(), "does not respond") {
			t.Error(err)
		}
	})
	t.Run("server without health service", func(t *testing.T) {
		p := NewSelfCheck(fakeSocket{})
		g := grpc.NewServer()
		defer p.serve(g)()
		defer g.Stop()
		if err := p.Probe(within(t, soon)); err == nil || !strings.Contains(err.Error(), `gRPC status "12"`) {
			t.Error(err)
		}
	})
}

// The check includes the locks of the service.
func TestServiceProbe(t *testing.T) {
	s, _ := newService(t, newCluster())
	f := s.feed(rabbit)
	for name, lock := range map[string]sync.Locker{"service": &s.mu, "feed": &f.mu, "tombstones": &s.tombstones.mu} {
		if err := s.Probe(within(t, soon)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		lock.Lock()
		if err := s.Probe(within(t, 20*time.Millisecond)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s is held: %v", name, err)
		}
		lock.Unlock()
	}
}

// The self-check does not count as activity; the same call of a client does.
func TestSelfCheckIsNotActivity(t *testing.T) {
	reported := make(chan struct{}, 100)
	idle := unixsocket.NewIdle(0, func() { reported <- struct{}{} })
	defer idle.Stop()
	r := startServer(t, func(o *Options) { o.Idle = idle })
	check := r.check
	idle.Set(time.Millisecond)
	<-reported
	for range 3 {
		if err := check.Probe(within(t, soon)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-reported:
		t.Error("the self-check counts as activity")
	case <-time.After(50 * time.Millisecond):
	}
	conn := r.dial(t)
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(within(t, soon), new(grpc_health_v1.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-reported:
	case <-time.After(soon):
		t.Error("a client's health check does not count as activity")
	}
}
