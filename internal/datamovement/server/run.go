package server

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// Transport is how the service is spoken. Quit is told when nothing has gone on
// for the idle time; nil: the daemon stays.
type Transport struct {
	Listener       net.Listener
	MaxMessage     int           // bytes of one request
	MaxMemory      int64         // bytes that one user's requests and answers take; 0: any number
	TotalMemory    int64         // bytes that those of all users take; 0: any number
	Handshake      time.Duration // until a connection speaks HTTP/2
	Shutdown       func() time.Duration
	Idle           *unixsocket.Idle
	Quit           <-chan struct{}
	Pulse          *Pulse              // of Listener; nil: nobody asks
	StreamsPerUser *unixsocket.Limiter // for a server without a Service
	Records        *unixsocket.Records // nil: callers may cause any number of log records
	Log            *slog.Logger

	meters *meters // for tests, which look at them
}

const (
	streamsPerConnection = 256
	// window is what a client may send before it is read, per stream and per
	// connection; it bounds the memory of those who send and do not wait.
	window = 64 << 10
	// readBuffer is what each connection has for itself. It is small because
	// requests are, and connections may be thousands.
	readBuffer = 1 << 10
	// writeBuffer is held while something is written.
	writeBuffer = 4 << 10
	// pingsApart is how often clients may ask whether we are alive.
	pingsApart = 10 * time.Second
)

// Serve answers for s until ctx ends or the daemon is idle, then lets running
// requests end. The error is one of serving: a daemon that cannot be reached
// must not stay ("Do better" 22).
func Serve(ctx context.Context, s *Service, t Transport) error {
	t.StreamsPerUser = s.streams
	defer s.Close()
	return serve(ctx, t, func(g *grpc.Server) {
		pb.RegisterDataMoverServer(g, version1{s: s})
		pb2.RegisterDataMoverServer(g, version2{s: s})
	}, s.EndWaits)
}

func serve(ctx context.Context, t Transport, register func(*grpc.Server), stopping func()) error {
	over, end := context.WithCancel(context.Background())
	defer end()
	g := &gate{streams: t.StreamsPerUser, records: t.Records, idle: t.Idle, log: t.Log, over: over}
	m := t.meters
	if m == nil {
		m = new(meters)
	}
	m.most, m.total, m.over = t.MaxMemory, t.TotalMemory, g.cutOff
	server := grpc.NewServer(
		grpc.Creds(peerCredentials{m}), grpc.ForceServerCodecV2(newAnswerCodec()),
		grpc.UnaryInterceptor(g.unary), grpc.StreamInterceptor(g.stream),
		grpc.MaxRecvMsgSize(t.MaxMessage), grpc.MaxHeaderListSize(8<<10),
		grpc.MaxConcurrentStreams(streamsPerConnection), grpc.ConnectionTimeout(t.Handshake),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(0), // meteredConn has one
		grpc.WriteBufferSize(writeBuffer),
		// The kernel tells when a local client is gone; nobody is pinged.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: math.MaxInt64}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsApart, PermitWithoutStream: true}),
	)
	register(server)
	alive := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, alive)
	reflection.Register(server)
	ended := make(chan error, 1)
	go func() { ended <- daemon.Safely(func() error { return server.Serve(t.Listener) }) }()
	defer t.Pulse.serve(server)()
	if err := wait(ctx, t, ended); err != nil {
		server.Stop()
		return err
	}
	t.Pulse.stop()
	alive.Shutdown()
	end()
	stopping()
	graceful(server, t)
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

var errServingEnded = errors.New("the socket is not served any more")

// wait returns nil when it is time to stop.
func wait(ctx context.Context, t Transport, ended chan error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-ended:
			if err == nil {
				err = errServingEnded
			}
			ended <- err
			return err
		case <-t.Quit:
			l, ok := t.Listener.(*unixsocket.Listener)
			if !ok || !l.Activated() {
				continue // nobody would start us again
			}
			if l.Quiesce() {
				t.Log.Info("idle, ending; the next client starts the daemon again", daemon.EventID(EventIdle))
				return nil
			}
		}
	}
}

// graceful gives running requests their time.
func graceful(server *grpc.Server, t Transport) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if l, ok := t.Listener.(*unixsocket.Listener); ok {
			l.Drain(t.Shutdown()) // later clients wait for the next process
		}
		server.GracefulStop()
	}()
	limit := time.NewTimer(t.Shutdown())
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		t.Log.Warn("requests were still running, they are cut off")
		server.Stop()
		<-done
	}
}
