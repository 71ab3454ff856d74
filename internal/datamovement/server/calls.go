package server

import (
	"context"
	"errors"
	"log/slog"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// gate is what every call goes through, of any service on the socket: who it is,
// whether the user may have one more, and what becomes of a panic.
type gate struct {
	streams *unixsocket.Limiter
	records *unixsocket.Records
	idle    *unixsocket.Idle
	log     *slog.Logger
	over    context.Context // ends when the service stops
}

type callKey struct{}

// callOf returns the call of a handler's context.
func callOf(ctx context.Context) Call {
	c, _ := ctx.Value(callKey{}).(Call)
	return c
}

func (g *gate) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (out any, err error) {
	err = g.pass(ctx, info.FullMethod, func(ctx context.Context) (err error) {
		if out, err = next(ctx, req); err != nil {
			return err
		}
		if out, err = tabOf(ctx).answer(ctx, out, true); err != nil {
			g.audit(callOf(ctx), "answer", err.Error())
			return grpcError(info.FullMethod, err)
		}
		return nil
	})
	return out, err
}

func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	return g.pass(ss.Context(), info.FullMethod, func(ctx context.Context) error {
		// Ours say why they end; gRPC's own, such as Health.Watch, have no end of
		// their own, and a shutdown would wait for them.
		if strings.HasPrefix(info.FullMethod, "/grpc.") {
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(g.over, cancel)()
		}
		err := next(srv, counted{ss, ctx, info.FullMethod, g})
		if t := tabOf(ctx); t != nil && errors.Is(ss.Context().Err(), context.Canceled) {
			t.close() // the client is gone, and with it all that waits to be written
		}
		return err
	})
}

func (g *gate) pass(ctx context.Context, method string, f func(context.Context) error) error {
	id, ok := identityOf(ctx)
	if !ok {
		return status.Error(codes.Unauthenticated, "the connection does not say who is calling")
	}
	if id.self {
		return f(ctx)
	}
	g.idle.Enter()
	defer g.idle.Leave()
	c := Call{Caller: callerOf(id.Peer), RPC: method}
	if id.refused != nil {
		g.audit(c, "", id.refused.Error())
		limit := "limits.connections_per_user"
		if e := (*unixsocket.LimitError)(nil); errors.As(id.refused, &e) && e.Shared {
			limit = "limits.connections"
		}
		return grpcError(method, datamovement.LimitExceeded(limit))
	}
	if id.meter.crowded() {
		g.audit(c, "", errTooMuch.Error())
		return grpcError(method, datamovement.LimitExceeded("limits.memory_per_user"))
	}
	release, err := g.streams.Acquire(c.UID)
	if err != nil {
		g.audit(c, "", err.Error())
		return grpcError(method, datamovement.LimitExceeded("limits.streams_per_user"))
	}
	defer release()
	if strings.HasPrefix(method, "/grpc.reflection.") && c.UID != 0 {
		g.audit(c, "", "reflection is for root")
		return status.Error(codes.PermissionDenied, "reflection is for root")
	}
	ctx = context.WithValue(ctx, callKey{}, c)
	if id.conn != nil {
		ctx = context.WithValue(ctx, tabKey{}, &tab{conn: id.conn})
	}
	err = daemon.Safely(func() error { return f(ctx) })
	if p := (*daemon.PanicError)(nil); errors.As(err, &p) {
		if !g.records.Allow(c.UID) {
			return status.Error(codes.Internal, "the daemon failed at this request; its log says more")
		}
		g.log.Error("a request ended in a panic", "rpc", method, "uid", c.UID, "pid", c.PID, "error", err,
			"hint", "this is a defect: please report it with the stack", "stack", string(p.Stack), daemon.EventID(eventRPCPanic))
		return status.Error(codes.Internal, "the daemon failed at this request; its log says more")
	}
	return err
}

// cutOff records that a connection is ended because of what its user holds.
func (g *gate) cutOff(id identity) {
	g.audit(Call{Caller: callerOf(id.Peer)}, "connection", errTooMuch.Error())
}

func (g *gate) audit(c Call, object, reason string) { audit(g.log, g.records, c, object, reason) }

// grpcError is the error of a call as its version of the protocol says it.
func grpcError(method string, err error) error {
	if strings.HasPrefix(method, "/datamovement.v2.") {
		return typedError(err)
	}
	return codedError(err)
}

// codedError is for version 1: code and text.
func codedError(err error) error {
	f := datamovement.Explain(err)
	if f == nil {
		return nil
	}
	return status.Error(codes.Code(datamovement.CodeOf(f)), clip(f.Error()))
}
