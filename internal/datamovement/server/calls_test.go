package server

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// The same failure in the words of both versions: in version 1 what the
// application finds is in the response, everything else is a gRPC error.
func TestBothVersions(t *testing.T) {
	for name, tt := range map[string]struct {
		world  func(*rig)
		wish   func(*v1.DataMovementCreateRequest)
		status v1.DataMovementCreateResponse_Status // version 1, when code is OK
		code   codes.Code                           // version 1
		reason v2.ErrorReason                       // version 2
		code2  codes.Code                           // of the whole; OK: of the pair
	}{
		"fine":        {status: v1.DataMovementCreateResponse_SUCCESS},
		"invalid":     {wish: func(r *v1.DataMovementCreateRequest) { r.DcpOptions = ";" }, status: v1.DataMovementCreateResponse_INVALID, reason: v2.ErrorReason_INVALID_FIELD, code2: codes.InvalidArgument},
		"destination": {wish: func(r *v1.DataMovementCreateRequest) { r.Destination = "/home/x" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_DESTINATION_NOT_FOUND},
		"profile":     {wish: func(r *v1.DataMovementCreateRequest) { r.Profile = "x" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_PROFILE_NOT_FOUND},
		"xfs":         {world: func(r *rig) { r.mounts = nil; r.mount(node, mount0, "xfs") }, status: v1.DataMovementCreateResponse_INVALID, reason: v2.ErrorReason_FILESYSTEM_NOT_SUPPORTED},
		"foreign":     {world: func(r *rig) { r.uid.Store(1002) }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_WORKFLOW_NOT_FOUND, code2: codes.NotFound},
		"state":       {world: func(r *rig) { r.workflow.Status.State = "DataIn" }, status: v1.DataMovementCreateResponse_FAILED, reason: v2.ErrorReason_WORKFLOW_STATE, code2: codes.FailedPrecondition},
		"denied":      {world: func(r *rig) { r.workflow.Spec.GroupID = 7 }, code: codes.PermissionDenied, reason: v2.ErrorReason_ACCESS_DENIED, code2: codes.PermissionDenied},
		"down":        {world: func(r *rig) { r.refuse("get workflows", errBroken) }, code: codes.Unavailable, reason: v2.ErrorReason_UNAVAILABLE, code2: codes.Unavailable},
		"no right":    {world: func(r *rig) { r.refuse("create", errForbidden) }, code: codes.Internal, reason: v2.ErrorReason_INTERNAL},
	} {
		t.Run(name, func(t *testing.T) {
			r := serveRig(t)
			if tt.world != nil {
				tt.world(r)
			}
			q := wireWish()
			if tt.wish != nil {
				tt.wish(q)
			}
			ctx, conn := within(t, soon), r.dial(t)
			v1, err := v1.NewDataMoverClient(conn).Create(ctx, q)
			if status.Code(err) != tt.code || err == nil && (v1.Status != tt.status || (v1.Message == "") != (tt.status == 0)) {
				t.Errorf("version 1: %v, %v", v1, err)
			}
			v2, err := v2.NewDataMoverClient(conn).CreateBatch(ctx, &v2.CreateBatchRequest{
				Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, Pairs: []*v2.CopyPair{{Source: q.Source, Destination: q.Destination}},
				Options: &v2.CopyOptions{DcpOptions: q.DcpOptions, Profile: q.Profile},
			})
			if status.Code(err) != tt.code2 || err != nil && reason(err) != tt.reason {
				t.Errorf("version 2: %v", err)
			}
			if err == nil && v2.Results[0].Error.GetReason() != tt.reason {
				t.Errorf("version 2: %v", v2)
			}
			for _, text := range []string{v1.String(), v2.String(), status.Convert(err).Message()} {
				if strings.Contains(text, "secret") {
					t.Errorf("a caller learns what the server says: %s", text)
				}
			}
		})
	}
}

// A field that is not set in version 2 means the profile; in version 1 its zero
// means none, which is what clients that never set it have always got.
func TestSlots(t *testing.T) {
	r := serveRig(t)
	ctx, conn := within(t, soon), r.dial(t)
	zero, four := int32(0), int32(4)
	for name, tt := range map[string]struct {
		options *v2.CopyOptions
		want    [2]int // -1: not in the object
	}{
		"no options": {nil, [2]int{-1, -1}},
		"not set":    {&v2.CopyOptions{}, [2]int{-1, -1}},
		"none":       {&v2.CopyOptions{Slots: &zero, MaxSlots: &zero}, [2]int{0, 0}},
		"some":       {&v2.CopyOptions{Slots: &four}, [2]int{4, -1}},
	} {
		b, err := v2.NewDataMoverClient(conn).CreateBatch(ctx, &v2.CreateBatchRequest{
			Workflow: &v2.Workflow{Name: "job7", Namespace: "default"}, Options: tt.options, Pairs: []*v2.CopyPair{{Source: wish.Source, Destination: wish.Destination}},
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := r.slots(b.Results[0].Uid); got != tt.want {
			t.Errorf("version 2, %s: %v, want %v", name, got, tt.want)
		}
	}
	for _, tt := range []struct {
		slots int32
		want  [2]int
	}{{0, [2]int{0, -1}}, {-1, [2]int{-1, -1}}, {4, [2]int{4, -1}}} {
		q := wireWish()
		q.Slots = tt.slots
		c, err := v1.NewDataMoverClient(conn).Create(ctx, q)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.slots(c.Uid); got != tt.want {
			t.Errorf("version 1, %d: %v, want %v", tt.slots, got, tt.want)
		}
	}
}

func (r *rig) slots(uid string) (out [2]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.movements[uid].Spec.UserConfig
	for i, n := range []*int32{c.Slots, c.MaxSlots} {
		out[i] = -1
		if n != nil {
			out[i] = int(*n)
		}
	}
	return out
}

// Version 2 without anything is told what is missing.
func TestEmptyRequests2(t *testing.T) {
	r := serveRig(t)
	m, ctx := v2.NewDataMoverClient(r.dial(t)), within(t, soon)
	w := &v2.Workflow{Name: "job7", Namespace: "default"}
	for name, call := range map[string]func() error{
		"batch":           func() error { _, err := m.CreateBatch(ctx, nil); return err },
		"batch, no pairs": func() error { _, err := m.CreateBatch(ctx, &v2.CreateBatchRequest{Workflow: w}); return err },
		"batch, an empty pair's workflow": func() error {
			_, err := m.CreateBatch(ctx, &v2.CreateBatchRequest{Pairs: []*v2.CopyPair{nil}})
			return err
		},
		"wait":            func() error { _, err := m.Wait(ctx, nil); return err },
		"cancel":          func() error { _, err := m.Cancel(ctx, nil); return err },
		"cancel, no uids": func() error { _, err := m.Cancel(ctx, &v2.CancelRequest{Workflow: w}); return err },
		"delete":          func() error { _, err := m.Delete(ctx, nil); return err },
		"delete, no uids": func() error { _, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w}); return err },
		"watch": func() error {
			s, err := m.Watch(ctx, nil)
			if err == nil {
				_, err = s.Recv()
			}
			return err
		},
	} {
		if err := call(); status.Code(err) != codes.InvalidArgument || reason(err) != v2.ErrorReason_INVALID_FIELD {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Nothing at all is followed by: nothing.
	s, err := m.Watch(ctx, &v2.WatchRequest{Workflow: w})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := s.Recv(); err != nil || len(first.Movements) != 0 {
		t.Errorf("%v, %v", first, err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// A connection that does not say whose it is gets nowhere.
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
	a, b := net.Pipe() // no socket
	defer a.Close()
	defer b.Close()
	if _, _, err := (peerCredentials{}).ServerHandshake(a); !errors.Is(err, unixsocket.ErrNoPeer) {
		t.Errorf("handshake: %v", err)
	}
	if _, _, err := (peerCredentials{}).ClientHandshake(t.Context(), "", a); err == nil {
		t.Error("these are no credentials of a client")
	}
	if c := callerOf(t.Context()); c.RPC != "" {
		t.Error("a call out of nowhere")
	}
}
