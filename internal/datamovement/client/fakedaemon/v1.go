package fakedaemon

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

type version1 struct {
	pb.UnimplementedDataMoverServer
	d *Daemon
}

// Started is when each copy began, Ended when it ended.
var (
	Started = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	Ended   = Started.Add(4 * time.Second)
)

func (v version1) Version(context.Context, *emptypb.Empty) (*pb.DataMovementVersionResponse, error) {
	return &pb.DataMovementVersionResponse{Version: "v9.9.9", ApiVersions: []string{pb.APIVersion}}, nil
}

func (v version1) Create(ctx context.Context, r *pb.DataMovementCreateRequest) (*pb.DataMovementCreateResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v1 Create %v key=%v", r, metadata.ValueFromIncomingContext(ctx, "nnf-dm-request-key"))
	if f, ok := faults[path.Base(r.GetSource())]; ok {
		switch f.reason.Code() {
		case codes.InvalidArgument:
			return &pb.DataMovementCreateResponse{Status: pb.DataMovementCreateResponse_INVALID, Message: f.text}, nil
		case codes.PermissionDenied, codes.Unavailable, codes.DeadlineExceeded, codes.ResourceExhausted:
			return nil, status.Error(f.reason.Code(), f.text)
		}
		return &pb.DataMovementCreateResponse{Status: pb.DataMovementCreateResponse_FAILED, Message: f.text}, nil
	}
	return &pb.DataMovementCreateResponse{Uid: d.create(r.GetSource(), r.GetDestination(), "")}, nil
}

// create adds a movement; the lock is held.
func (d *Daemon) create(source, destination, batch string) string {
	d.count++
	m := &movement{uid: fmt.Sprintf("nnf-dm-node-%d", d.count), batch: batch, source: source, destination: destination}
	m.script, m.held = scriptOf(source)
	d.movements[m.uid] = m
	return m.uid
}

func (v version1) Status(ctx context.Context, r *pb.DataMovementStatusRequest) (*pb.DataMovementStatusResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v1 Status %s wait=%d", r.GetUid(), r.GetMaxWaitTime())
	m := d.movements[r.GetUid()]
	if m == nil {
		return &pb.DataMovementStatusResponse{State: pb.DataMovementStatusResponse_UNKNOWN_STATE, Status: pb.DataMovementStatusResponse_NOT_FOUND}, nil
	}
	defer m.advance()
	s := m.now()
	out := &pb.DataMovementStatusResponse{State: states[s.state], Message: s.message, CommandStatus: &pb.DataMovementCommandStatus{
		Command: "mpirun dcp", Progress: s.percent, LastMessage: valid(s.last), LastMessageTime: pb.TimeText(Started),
	}, StartTime: pb.TimeText(Started)}
	out.Message = valid(out.Message)
	if s.percent > 0 {
		out.CommandStatus.ElapsedTime = pb.ElapsedText(time.Duration(s.percent) * 40 * time.Millisecond)
	}
	if m.ended() { // else 0, which is INVALID, as old daemons send it
		out.Status, out.EndTime = results[s.result], pb.TimeText(Ended)
	}
	return out, nil
}

var states = map[pb2.MovementState]pb.DataMovementStatusResponse_State{
	pb2.MovementState_MOVEMENT_STATE_PENDING: pb.DataMovementStatusResponse_PENDING, running: pb.DataMovementStatusResponse_RUNNING,
	pb2.MovementState_MOVEMENT_STATE_CANCELLING: pb.DataMovementStatusResponse_CANCELLING, completed: pb.DataMovementStatusResponse_COMPLETED,
}

var results = map[pb2.MovementResult]pb.DataMovementStatusResponse_Status{
	success: pb.DataMovementStatusResponse_SUCCESS, failed: pb.DataMovementStatusResponse_FAILED,
	invalid: pb.DataMovementStatusResponse_INVALID, cancelled: pb.DataMovementStatusResponse_CANCELLED,
}

func (v version1) Cancel(_ context.Context, r *pb.DataMovementCancelRequest) (*pb.DataMovementCancelResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v1 Cancel %s", r.GetUid())
	m := d.movements[r.GetUid()]
	if m == nil {
		return &pb.DataMovementCancelResponse{Status: pb.DataMovementCancelResponse_NOT_FOUND}, nil
	}
	m.cancel()
	d.wake()
	return &pb.DataMovementCancelResponse{Status: pb.DataMovementCancelResponse_SUCCESS}, nil
}

func (v version1) Delete(_ context.Context, r *pb.DataMovementDeleteRequest) (*pb.DataMovementDeleteResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v1 Delete %s", r.GetUid())
	switch m := d.movements[r.GetUid()]; {
	case m == nil:
		return &pb.DataMovementDeleteResponse{Status: pb.DataMovementDeleteResponse_NOT_FOUND}, nil
	case !m.ended():
		return &pb.DataMovementDeleteResponse{Status: pb.DataMovementDeleteResponse_ACTIVE}, nil
	}
	delete(d.movements, r.GetUid())
	return &pb.DataMovementDeleteResponse{Status: pb.DataMovementDeleteResponse_SUCCESS}, nil
}

func (v version1) List(context.Context, *pb.DataMovementListRequest) (*pb.DataMovementListResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v1 List")
	return &pb.DataMovementListResponse{Uids: slices.Sorted(maps.Keys(d.movements))}, nil
}
