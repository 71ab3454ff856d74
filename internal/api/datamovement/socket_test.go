package datamovement

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	datamovementv2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

type one struct {
	UnimplementedDataMoverServer
	got *DataMovementCreateRequest
}

func (s *one) Version(context.Context, *emptypb.Empty) (*DataMovementVersionResponse, error) {
	return &DataMovementVersionResponse{Version: "v1.2.3", ApiVersions: []string{APIVersion}}, nil
}

func (s *one) Create(_ context.Context, r *DataMovementCreateRequest) (*DataMovementCreateResponse, error) {
	s.got = r
	return &DataMovementCreateResponse{Uid: "nnf-dm-x"}, nil
}

type two struct {
	datamovementv2.UnimplementedDataMoverServer
}

func (two) Watch(r *datamovementv2.WatchRequest, stream grpc.ServerStreamingServer[datamovementv2.WatchResponse]) error {
	for _, uid := range r.GetUids() {
		if err := stream.Send(&datamovementv2.WatchResponse{Movements: []*datamovementv2.MovementStatus{{Uid: uid}}}); err != nil {
			return err
		}
	}
	return nil
}

func (two) Wait(context.Context, *datamovementv2.WaitRequest) (*datamovementv2.WaitResponse, error) {
	return nil, datamovementv2.NewError(datamovementv2.ErrorReason_MOVEMENT_NOT_FOUND, "could not find data movement", nil)
}

// serve starts a server on a Unix socket and returns a connection to it, with the options
// of existing clients.
func serve(t *testing.T, register func(*grpc.Server)) *grpc.ClientConn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dm.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	register(s)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	conn, err := grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Stop()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return conn
}

func TestBothVersionsOnOneSocket(t *testing.T) {
	first := &one{}
	conn := serve(t, func(s *grpc.Server) {
		RegisterDataMoverServer(s, first)
		datamovementv2.RegisterDataMoverServer(s, two{})
	})
	c1, c2 := NewDataMoverClient(conn), datamovementv2.NewDataMoverClient(conn)

	v, err := c1.Version(t.Context(), &emptypb.Empty{})
	if want := (&DataMovementVersionResponse{Version: "v1.2.3", ApiVersions: []string{"1"}}); err != nil || !proto.Equal(v, want) {
		t.Errorf("version %v, %v", v, err)
	}
	req := &DataMovementCreateRequest{Workflow: &DataMovementWorkflow{Name: "w"}, Slots: -1}
	created, err := c1.Create(t.Context(), req)
	if err != nil || created.GetUid() != "nnf-dm-x" || !proto.Equal(first.got, req) {
		t.Errorf("create %v, %v of %v", created, err, first.got)
	}

	stream, err := c2.Watch(t.Context(), &datamovementv2.WatchRequest{Uids: []string{"a", "b"}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"a", "b"} {
		if m, err := stream.Recv(); err != nil || m.GetMovements()[0].GetUid() != want {
			t.Errorf("watch %v, %v, want %s", m, err, want)
		}
	}
	if _, err := stream.Recv(); err != io.EOF {
		t.Errorf("the stream ends with %v", err)
	}

	// The client gets the reason.
	_, err = c2.Wait(t.Context(), &datamovementv2.WaitRequest{})
	if r, _ := datamovementv2.Reason(err); r != datamovementv2.ErrorReason_MOVEMENT_NOT_FOUND || status.Code(err) != codes.NotFound {
		t.Errorf("wait: %v", err)
	}
}

// The code shows the client that a daemon has no version 2.
func TestOldDaemon(t *testing.T) {
	conn := serve(t, func(s *grpc.Server) { RegisterDataMoverServer(s, &one{}) })
	_, err := datamovementv2.NewDataMoverClient(conn).CreateBatch(t.Context(), &datamovementv2.CreateBatchRequest{})
	if r, _ := datamovementv2.Reason(err); status.Code(err) != codes.Unimplemented || r != datamovementv2.ErrorReason_ERROR_REASON_UNSPECIFIED {
		t.Errorf("got %v, %v", err, r)
	}
}
