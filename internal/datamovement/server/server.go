// Package server serves the Copy Offload API on the socket: both versions of the
// protocol, the limits and log records of each call, and the requests to the API
// server. Package datamovement, which is pure, decides what is allowed and builds the
// objects.
//
// A call passes from Serve through the interceptors to version1 or version2, which
// decode it, call a method of Service and encode the response.
//
// It must not know how the configuration is read, nor anything about the machine
// except the name of the node.
//
// # Idle cost
//
// The daemon watches data movements only while a request follows one, and for some
// seconds afterwards. Responses come from that watch: repeated status requests for a
// movement cause no request to the API server.
package server

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// Transport configures how clients reach the service. Quit receives a value when the
// daemon has been idle for its idle time; if Quit is nil, the daemon keeps running.
type Transport struct {
	Listener       net.Listener
	MaxMessage     int           // bytes of one request
	MaxMemory      int64         // bytes for the requests and responses of one user; 0: no limit
	TotalMemory    int64         // bytes for those of all users; 0: no limit
	Handshake      time.Duration // time limit for the HTTP/2 handshake
	Shutdown       func() time.Duration
	Idle           *unixsocket.Idle
	Quit           <-chan struct{}
	Check          *SelfCheck          // of Listener; may be nil
	StreamsPerUser *unixsocket.Limiter // for a server without a Service
	Records        *unixsocket.Records // nil: no limit for log records caused by callers
	Log            *slog.Logger

	meters *meters // set by tests
}

const (
	streamsPerConnection = 256
	// window is how many bytes a client may send before the server reads them, per stream
	// and per connection. It limits the memory of clients that send without waiting.
	window = 64 << 10
	// readBuffer is the size of the read buffer of a connection. It is small because
	// requests are small, and there can be thousands of connections.
	readBuffer = 1 << 10
	// writeBuffer is the size of the write buffer, allocated only during writes.
	writeBuffer = 4 << 10
	// pingsApart is the minimum time between two keepalive pings of a client.
	pingsApart = 10 * time.Second
)

// Serve serves s until ctx ends or the daemon is idle, then waits for running requests.
// It returns an error if serving fails: an unreachable daemon must exit.
func Serve(ctx context.Context, s *Service, t Transport) error {
	t.StreamsPerUser = s.streams
	defer s.Close()
	return serve(ctx, t, func(g *grpc.Server) {
		v1.RegisterDataMoverServer(g, version1{s: s})
		v2.RegisterDataMoverServer(g, version2{s: s, messageSize: int64(t.MaxMessage), memory: t.MaxMemory})
	}, s.EndWaits)
}

func serve(ctx context.Context, t Transport, register func(*grpc.Server), stopping func()) error {
	over, end := context.WithCancel(context.Background())
	defer end()
	i := &interceptor{streams: t.StreamsPerUser, records: t.Records, idle: t.Idle, log: t.Log, over: over}
	m := t.meters
	if m == nil {
		m = new(meters)
	}
	m.most, m.total, m.over = t.MaxMemory, t.TotalMemory, i.cutOff
	server := grpc.NewServer(
		grpc.Creds(peerCredentials{m}), grpc.ForceServerCodecV2(newAnswerCodec()),
		grpc.UnaryInterceptor(i.unary), grpc.StreamInterceptor(i.stream),
		grpc.MaxRecvMsgSize(t.MaxMessage), grpc.MaxHeaderListSize(8<<10),
		grpc.MaxConcurrentStreams(streamsPerConnection), grpc.ConnectionTimeout(t.Handshake),
		grpc.InitialWindowSize(window), grpc.InitialConnWindowSize(window),
		grpc.ReadBufferSize(0), // meteredConn has one
		grpc.WriteBufferSize(writeBuffer),
		// The kernel reports disconnected local clients, so the server sends no pings.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: math.MaxInt64}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: pingsApart, PermitWithoutStream: true}),
	)
	register(server)
	alive := health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, alive)
	reflection.Register(server)
	ended := make(chan error, 1)
	go func() { ended <- daemon.Safely(func() error { return server.Serve(t.Listener) }) }()
	defer t.Check.serve(server)()
	if err := untilStop(ctx, t, ended); err != nil {
		server.Stop()
		return err
	}
	t.Check.stop()
	alive.Shutdown()
	end()
	stopping()
	graceful(server, t)
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

var errServingEnded = errors.New("the gRPC server has stopped serving the socket")

// untilStop returns nil when it is time to stop.
func untilStop(ctx context.Context, t Transport, ended chan error) error {
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
				continue // systemd would not start the daemon again
			}
			if l.Quiesce() {
				t.Log.Info("idle, exiting; the next client starts the daemon again", daemon.EventID(EventIdle))
				return nil
			}
		}
	}
}

// graceful stops the server when running requests have ended, or after the shutdown
// timeout.
func graceful(server *grpc.Server, t Transport) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if l, ok := t.Listener.(*unixsocket.Listener); ok {
			l.Drain(t.Shutdown()) // the next process serves later connections
		}
		server.GracefulStop()
	}()
	limit := time.NewTimer(t.Shutdown())
	defer limit.Stop()
	select {
	case <-done:
	case <-limit.C:
		t.Log.Warn("the shutdown timeout has expired; running requests are aborted")
		server.Stop()
		<-done
	}
}

// peerCredentials identifies callers by kernel peer credentials. It sends nothing:
// clients use an insecure channel.
type peerCredentials struct{ meters *meters }

// identity is the caller of a connection, with the reason if the connection is refused.
type identity struct {
	credentials.CommonAuthInfo
	caller  datamovement.Caller
	refused error
	self    bool         // a connection of SelfCheck
	meter   *meter       // nil: memory is not counted
	conn    *meteredConn // nil: memory is not counted
}

// AuthType implements credentials.AuthInfo.
func (identity) AuthType() string { return "peercred" }

func (p peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	id := identity{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	if _, id.self = c.(selfConn); id.self {
		return c, id, nil
	}
	peer, err := unixsocket.PeerOf(c)
	if err != nil {
		return nil, nil, err
	}
	id.caller = datamovement.Caller{UID: peer.UID, GID: peer.GID, PID: peer.PID, Groups: peer.Groups}
	if uc, ok := c.(*unixsocket.Conn); ok {
		id.refused = uc.Refused()
	}
	c = p.meters.watch(c, &id)
	return c, id, nil
}

func (peerCredentials) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for servers only")
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }

func (peerCredentials) OverrideServerName(string) error { return nil }

// identityOf returns the identity of the caller's connection; false if the transport has
// none.
func identityOf(ctx context.Context) (identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity{}, false
	}
	id, ok := p.AuthInfo.(identity)
	return id, ok
}

// interceptor handles the calls of all services on the socket: it identifies the
// caller, applies the limits of the user, and converts panics to errors.
type interceptor struct {
	streams *unixsocket.Limiter
	records *unixsocket.Records
	idle    *unixsocket.Idle
	log     *slog.Logger
	over    context.Context // ends when the service stops
}

type callerKey struct{}

// callerOf returns the caller of a handler's context.
func callerOf(ctx context.Context) datamovement.Caller {
	c, _ := ctx.Value(callerKey{}).(datamovement.Caller)
	return c
}

func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	err = i.pass(ctx, info.FullMethod, func(ctx context.Context) (err error) {
		if out, err = next(ctx, req); err != nil {
			return err
		}
		if out, err = chargeOf(ctx).answer(ctx, out, true); err != nil {
			i.audit(callerOf(ctx), "answer", err.Error())
			return grpcError(info.FullMethod, err)
		}
		return nil
	})
	return out, err
}

func (i *interceptor) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return i.pass(ss.Context(), info.FullMethod, func(ctx context.Context) error {
		// Our own streams end with an error at a shutdown. Those of gRPC, such as
		// Health.Watch, must be cancelled here, or a shutdown would wait for them.
		if strings.HasPrefix(info.FullMethod, "/grpc.") {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(i.over, cancel)()
		}
		err := next(srv, counted{ss, ctx, info.FullMethod, i})
		if t := chargeOf(ctx); t != nil && errors.Is(ss.Context().Err(), context.Canceled) {
			t.close() // the client has disconnected, and gRPC drops all pending responses
		}
		return err
	})
}

func (i *interceptor) pass(ctx context.Context, method string, f func(context.Context) error) error {
	id, ok := identityOf(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "the connection has no peer credentials")
	}
	if id.self {
		return f(ctx)
	}
	i.idle.Enter()
	defer i.idle.Leave()
	c := id.caller
	c.RPC = method
	if id.refused != nil {
		i.audit(c, "", id.refused.Error())
		limit := "limits.connections_per_user"
		if e := (*unixsocket.LimitError)(nil); errors.As(id.refused, &e) && e.Shared {
			limit = "limits.connections"
		}
		return grpcError(method, datamovement.LimitExceeded(limit))
	}
	if id.meter.aboveSoftLimit() {
		i.audit(c, "", errTooMuch.Error())
		return grpcError(method, datamovement.LimitExceeded("limits.memory_per_user"))
	}
	release, err := i.streams.Acquire(c.UID)
	if err != nil {
		i.audit(c, "", err.Error())
		return grpcError(method, datamovement.LimitExceeded("limits.streams_per_user"))
	}
	defer release()
	if strings.HasPrefix(method, "/grpc.reflection.") && c.UID != 0 {
		i.audit(c, "", "only root may use server reflection")
		return status.Error(codes.PermissionDenied, "only root may use server reflection")
	}
	ctx = context.WithValue(ctx, callerKey{}, c)
	if id.conn != nil {
		ctx = context.WithValue(ctx, chargeKey{}, &charge{conn: id.conn})
	}
	err = daemon.Safely(func() error { return f(ctx) })
	if p := (*daemon.PanicError)(nil); errors.As(err, &p) {
		if !i.records.Allow(c.UID) {
			return status.Error(codes.Internal, "internal error in the daemon; its log has the details")
		}
		i.log.Error("a request caused a panic", "rpc", method, "uid", c.UID, "pid", c.PID, "error", err,
			"hint", "this is a bug: please report it with the stack trace", "stack", string(p.Stack), daemon.EventID(eventRPCPanic))
		return status.Error(codes.Internal, "internal error in the daemon; its log has the details")
	}
	return err
}

// cutOff records that a connection is closed because its user exceeds the memory limit.
func (i *interceptor) cutOff(id identity) {
	i.audit(id.caller, "connection", errTooMuch.Error())
}

func (i *interceptor) audit(c datamovement.Caller, object, reason string) {
	audit(i.log, i.records, c, object, reason)
}

// grpcError returns the error of a call in the method's version of the protocol.
func grpcError(method string, err error) error {
	if strings.HasPrefix(method, "/datamovement.v2.") {
		return errorV2(err)
	}
	return errorV1(err)
}
