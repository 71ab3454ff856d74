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

// door is a socket whose loop answers, or not.
type door struct{ err error }

func (d door) Probe(ctx context.Context) error {
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
		t.Errorf("the question takes %d connections: %d refusals", open, r.log.count("refused"))
	}
	// From the beginning of the shutdown on its own limit counts, while a request
	// still runs.
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
		t.Error("it goes on asking during the shutdown")
	}
	if err := check.Probe(within(t, soon)); err != nil {
		t.Errorf("during the shutdown: %v", err)
	}
}

// What does not answer is told apart.
func TestSelfCheckMissed(t *testing.T) {
	wide := errors.New("still waiting")
	late := func(t *testing.T) context.Context {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, wide)
		t.Cleanup(cancel)
		return ctx
	}
	t.Run("accept loop", func(t *testing.T) {
		p := NewSelfCheck(door{err: wide})
		if err := p.Probe(late(t)); !errors.Is(err, wide) || !strings.Contains(err.Error(), "takes no clients") {
			t.Error(err)
		}
	})
	t.Run("nobody serves", func(t *testing.T) {
		p := NewSelfCheck(door{})
		if err := p.Probe(late(t)); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Error(err)
		}
	})
	t.Run("a server that answers nothing", func(t *testing.T) {
		p := NewSelfCheck(door{})
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
		if err := p.Probe(late(t)); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Error(err)
		}
	})
	t.Run("a server that knows no health", func(t *testing.T) {
		p := NewSelfCheck(door{})
		g := grpc.NewServer()
		defer p.serve(g)()
		defer g.Stop()
		if err := p.Probe(within(t, soon)); err == nil || !strings.Contains(err.Error(), `gRPC status "12"`) {
			t.Error(err)
		}
	})
}

// The locks of the service belong to the way.
func TestProbeOfTheService(t *testing.T) {
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

// The daemon's question for itself is no sign of life of a client; a client's is.
func TestSelfCheckIsNotActivity(t *testing.T) {
	told := make(chan struct{}, 100)
	idle := unixsocket.NewIdle(0, func() { told <- struct{}{} })
	defer idle.Stop()
	r := startServer(t, func(o *Options) { o.Idle = idle })
	check := r.check
	idle.Set(time.Millisecond)
	<-told
	for range 3 {
		if err := check.Probe(within(t, soon)); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-told:
		t.Error("the question counts as a client's")
	case <-time.After(50 * time.Millisecond):
	}
	conn := r.dial(t)
	if _, err := grpc_health_v1.NewHealthClient(conn).Check(within(t, soon), new(grpc_health_v1.HealthCheckRequest)); err != nil {
		t.Fatal(err)
	}
	select {
	case <-told:
	case <-time.After(soon):
		t.Error("a client's question does not count")
	}
}
