package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// A shutdown during waits, streams, watches and connections without data leaves no
// goroutine, and every request gets a response.
func TestShutdownLeavesNothing(t *testing.T) {
	ours := goleak.IgnoreCurrent()
	before := runtime.NumGoroutine()
	t.Run("shutdown", func(t *testing.T) {
		r := startServer(t, func(o *Options) { o.Settings.Limits.Waiters = 100 })
		conn := r.dial(t)
		m, m2, ctx := v1.NewDataMoverClient(conn), v2.NewDataMoverClient(conn), within(t, soon)
		c, err := m.Create(ctx, wireWish())
		if err != nil || c.Uid == "" {
			t.Fatal(c, err)
		}
		silent, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		w := &v2.Workflow{Name: "job7", Namespace: "default"}
		ends := make(chan codes.Code, 100)
		start := func(f func() error) { go func() { ends <- status.Code(f()) }() }
		const each = 5
		for range each {
			start(func() error {
				s, err := m.Status(ctx, &v1.DataMovementStatusRequest{Workflow: wire7, Uid: c.Uid, MaxWaitTime: -1})
				if err == nil && s.State != v1.DataMovementStatusResponse_PENDING {
					t.Errorf("%v", s)
				}
				return err
			})
			start(func() error { _, err := m2.Wait(ctx, &v2.WaitRequest{Workflow: w, Uids: []string{c.Uid}}); return err })
			start(func() error {
				s, err := m2.Watch(ctx, &v2.WatchRequest{Workflow: w, Uids: []string{c.Uid}})
				for err == nil {
					_, err = s.Recv()
				}
				return err
			})
		}
		start(func() error {
			s, err := grpc_health_v1.NewHealthClient(conn).Watch(ctx, new(grpc_health_v1.HealthCheckRequest))
			for err == nil {
				_, err = s.Recv()
			}
			return err
		})
		wait.Until(t, "all waiting requests", func() bool { n, _ := r.s.waiters.InUse(1001); return n == 3*each })
		r.stop()
		got := map[codes.Code]int{}
		for range 3*each + 1 {
			got[<-ends]++
		}
		// Status returns the current state; version 2 reports that the daemon is stopping.
		if got[codes.OK] != each || got[codes.Unavailable] != 2*each || got[codes.Canceled] != 1 {
			t.Errorf("%v", got)
		}
		if r.log.count("running requests are aborted") != 0 {
			t.Error("the shutdown timeout has expired")
		}
	})
	goleak.VerifyNone(t, ours)
	if after := runtime.NumGoroutine(); after > before {
		t.Errorf("%d goroutines, %d before", after, before)
	}
}

// broken is a listener that fails.
type broken struct{ err error }

func (b broken) Accept() (net.Conn, error) { return nil, b.err }

func (broken) Close() error { return nil }

func (broken) Addr() net.Addr { return &net.UnixAddr{Name: "/x", Net: "unix"} }

func transport(l net.Listener) Transport {
	return Transport{Listener: l, MaxMessage: 1 << 16, Handshake: soon, Shutdown: func() time.Duration { return 10 * time.Millisecond }, Log: slog.New(slog.DiscardHandler)}
}

// A daemon that clients cannot reach must exit.
func TestServeFails(t *testing.T) {
	s, _ := newService(t, newCluster())
	if err := Serve(t.Context(), s, transport(broken{errors.New("the socket is broken")})); err == nil || !strings.Contains(err.Error(), "the socket is broken") {
		t.Error(err)
	}
	s, _ = newService(t, newCluster())
	if err := Serve(t.Context(), s, transport(panics{})); err == nil || !strings.Contains(err.Error(), "oh") {
		t.Error(err)
	}
	if err := ServeSimulated(t.Context(), transport(broken{net.ErrClosed})); err == nil {
		t.Error("a closed listener is treated as a shutdown")
	}
}

type panics struct{ broken }

func (panics) Accept() (net.Conn, error) { panic("oh") }

// The daemon exits when idle only with socket activation.
func TestNoIdleExitWithOwnSocket(t *testing.T) {
	quit := make(chan struct{})
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	tr := transport(l)
	tr.Quit = quit
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ServeSimulated(ctx, tr) }()
	for range 3 {
		quit <- struct{}{} // received each time
	}
	select {
	case err := <-ended:
		t.Fatalf("the server stopped: %v", err)
	default:
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// A request that hangs is aborted after the shutdown timeout, and this is logged.
func TestShutdownTimeout(t *testing.T) {
	r := startServer(t)
	conn := r.dial(t)
	s, err := conn.NewStream(within(t, soon), &grpc.StreamDesc{ClientStreams: true}, "/datamovement.DataMover/Create")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v1.NewDataMoverClient(conn).Version(within(t, soon), new(emptypb.Empty)); err != nil {
		t.Fatal(err)
	}
	r.shutdown.Store(int64(20 * time.Millisecond))
	r.stop()
	if err := s.RecvMsg(new(v1.DataMovementCreateResponse)); status.Code(err) != codes.Unavailable || errors.Is(err, io.EOF) {
		t.Errorf("the pending request: %v", err)
	}
	<-r.ended
	if r.log.count("running requests are aborted") != 1 {
		t.Error("not logged")
	}
}

func TestInterceptor(t *testing.T) {
	r := startServer(t)
	conn, ctx := r.dial(t), t.Context()
	m := v1.NewDataMoverClient(conn)
	if h, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, new(grpc_health_v1.HealthCheckRequest)); err != nil || h.Status != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", h, err)
	}
	big := wireWish()
	big.Source = "/" + strings.Repeat("a", 64<<10)
	if _, err := m.Create(ctx, big); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("too large: %v", err)
	}
	r.s.look = nil // the next request panics
	if _, err := m.Create(ctx, wireWish()); status.Code(err) != codes.Internal || r.log.count("event=dm-panic") != 1 {
		t.Errorf("panic: %v", err)
	}
	if _, err := m.Version(ctx, new(emptypb.Empty)); err != nil {
		t.Errorf("after the panic: %v", err)
	}
	reflected := func() codes.Code {
		s, err := reflectionpb.NewServerReflectionClient(r.dial(t)).ServerReflectionInfo(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = s.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		_, err = s.Recv()
		return status.Code(err)
	}
	if c := reflected(); c != codes.PermissionDenied {
		t.Errorf("reflection for a user: %s", c)
	}
	r.uid.Store(0)
	if c := reflected(); c != codes.OK {
		t.Errorf("reflection for root: %s", c)
	}
}

func TestConnectionLimit(t *testing.T) {
	r := startServer(t)
	call := func() error {
		_, err := v1.NewDataMoverClient(r.dial(t)).Version(t.Context(), new(emptypb.Empty))
		return err
	}
	for i := range 3 {
		if err := call(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := call(); status.Code(err) != codes.ResourceExhausted || r.log.count("event=dm-refused") != 1 {
		t.Errorf("above the limit: %v", err)
	}
	r.uid.Store(1002)
	if err := call(); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func TestStreamLimit(t *testing.T) {
	r := startServer(t, func(o *Options) { o.Settings.Limits.Streams = 1 })
	m := v1.NewDataMoverClient(r.dial(t))
	c, err := m.Create(t.Context(), wireWish())
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := m.Status(t.Context(), &v1.DataMovementStatusRequest{Uid: c.Uid, MaxWaitTime: -1})
		waited <- err
	}()
	wait.Until(t, "the waiting request", func() bool { n, _ := r.s.waiters.InUse(1001); return n > 0 })
	if _, err := m.Version(t.Context(), new(emptypb.Empty)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("second request: %v", err)
	}
	r.stop() // a shutdown ends the wait
	if err := <-waited; err != nil {
		t.Errorf("the waiting request at the shutdown: %v", err)
	}
}

// A connection without peer credentials is refused.
func TestNoIdentity(t *testing.T) {
	g := &interceptor{log: slog.New(slog.DiscardHandler), over: t.Context()}
	called := false
	for name, ctx := range map[string]context.Context{
		"no peer": t.Context(), "no credentials": peer.NewContext(t.Context(), &peer.Peer{Addr: &net.UnixAddr{}}),
	} {
		_, err := g.unary(ctx, nil, &grpc.UnaryServerInfo{FullMethod: "/x/Y"}, func(context.Context, any) (any, error) { called = true; return nil, nil })
		if status.Code(err) != codes.Unauthenticated || called {
			t.Errorf("%s: %v", name, err)
		}
	}
	a, b := net.Pipe() // not a socket
	defer a.Close()
	defer b.Close()
	if _, _, err := (peerCredentials{}).ServerHandshake(a); !errors.Is(err, unixsocket.ErrNoPeer) {
		t.Errorf("handshake: %v", err)
	}
	if _, _, err := (peerCredentials{}).ClientHandshake(t.Context(), "", a); err == nil {
		t.Error("accepted as client credentials")
	}
	if c := callerOf(t.Context()); c.RPC != "" {
		t.Error("a call without an identity is accepted")
	}
}
