package fakedaemon

import (
	"context"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

type version1 struct {
	pb.UnimplementedDataMoverServer
	d *Daemon
}

// Started is when each copy started, Ended when it ended.
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

type version2 struct {
	pb2.UnimplementedDataMoverServer
	d *Daemon
}

// faults are the errors with which requests are refused, by the last element of the source.
var faults = map[string]struct {
	reason pb2.ErrorReason
	text   string
}{
	"wrong":   {pb2.ErrorReason_INVALID_FIELD, `source "/mnt/wrong" is refused`},
	"denied":  {pb2.ErrorReason_ACCESS_DENIED, "copies as root are not allowed here"},
	"foreign": {pb2.ErrorReason_WORKFLOW_NOT_FOUND, `could not find workflow "default/job"`},
	"nomount": {pb2.ErrorReason_MOUNT_NOT_FOUND, "source path '/mnt/nomount' not found in list of client mounts"},
	"busy":    {pb2.ErrorReason_LIMIT_EXCEEDED, "too much at once for one user"},
	"down":    {pb2.ErrorReason_UNAVAILABLE, "the API server does not answer"},
	"late":    {pb2.ErrorReason_TIMEOUT, "there was no answer in time"},
	"mute":    {pb2.ErrorReason_PROFILE_NOT_FOUND, ""},
}

func (v version2) CreateBatch(ctx context.Context, r *pb2.CreateBatchRequest) (*pb2.CreateBatchResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	key := r.GetRequestKey()
	if strings.HasPrefix(key, "nnf-dmctl-") {
		key = "own"
	}
	d.note("v2 CreateBatch %v %v key=%s", r.GetPairs(), r.GetOptions(), key)
	if path.Base(r.GetPairs()[0].GetSource()) == "hang" {
		d.mu.Unlock()
		<-ctx.Done()
		d.mu.Lock()
		return nil, ctx.Err()
	}
	out := &pb2.CreateBatchResponse{Uid: fmt.Sprintf("batch-%d", d.count+1)}
	for _, p := range r.GetPairs() {
		f, bad := faults[path.Base(p.GetSource())]
		switch {
		case !bad:
			out.Results = append(out.Results, &pb2.PairResult{Uid: d.create(p.GetSource(), p.GetDestination(), out.Uid)})
		case f.reason == pb2.ErrorReason_INVALID_FIELD || f.reason == pb2.ErrorReason_MOUNT_NOT_FOUND:
			out.Results = append(out.Results, &pb2.PairResult{Error: &pb2.Problem{Reason: f.reason, Message: f.text}})
		default:
			return nil, pb2.NewError(f.reason, f.text, nil)
		}
	}
	return out, nil
}

// find returns the movements of ids; the lock is held.
func (d *Daemon) find(ids []string) ([]*movement, error) {
	found := make(map[string]*movement)
	if len(ids) == 0 {
		found = d.movements
	}
	for _, id := range ids {
		n := len(found)
		for uid, m := range d.movements {
			if uid == id || m.batch == id {
				found[uid] = m
			}
		}
		if len(found) == n {
			return nil, pb2.NewError(pb2.ErrorReason_MOVEMENT_NOT_FOUND, fmt.Sprintf("could not find data movement %q", id), nil)
		}
	}
	var out []*movement
	for _, uid := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[uid])
	}
	return out, nil
}

// stepTime is how long a step lasts.
const stepTime = 20 * time.Millisecond

// follow calls show with all movements, and again after each change, until all have ended.
func (d *Daemon) follow(ctx context.Context, ids []string, show func([]*pb2.MovementStatus) error) error {
	tick := time.NewTicker(stepTime)
	defer tick.Stop()
	last := ""
	for {
		d.mu.Lock()
		all, err := d.find(ids)
		var now []*pb2.MovementStatus
		ended := true
		for _, m := range all {
			now = append(now, m.status())
			ended = ended && m.ended()
		}
		changed := d.changed
		d.mu.Unlock()
		if is := fmt.Sprint(now); err == nil && is != last {
			last, err = is, show(now)
		}
		if err != nil || ended {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		case <-tick.C:
		}
		d.mu.Lock()
		for _, m := range all {
			m.advance()
		}
		d.mu.Unlock()
	}
}

// pageStates is how many statuses a message of Watch has at most.
const pageStates = 64

func (v version2) Watch(r *pb2.WatchRequest, stream grpc.ServerStreamingServer[pb2.WatchResponse]) error {
	v.d.mu.Lock()
	v.d.note("v2 Watch %v", r.GetUids())
	v.d.mu.Unlock()
	begun := false
	return v.d.follow(stream.Context(), r.GetUids(), func(now []*pb2.MovementStatus) error {
		if !begun {
			begun = true
			if err := stream.SetHeader(metadata.Pairs(pb2.HeaderMovements, strconv.Itoa(len(now)))); err != nil {
				return err
			}
		}
		for page := range slices.Chunk(now, pageStates) {
			if err := stream.Send(&pb2.WatchResponse{Movements: page}); err != nil {
				return err
			}
		}
		if len(now) == 0 {
			return stream.Send(new(pb2.WatchResponse))
		}
		return nil
	})
}

func (v version2) Wait(ctx context.Context, r *pb2.WaitRequest) (*pb2.WaitResponse, error) {
	v.d.mu.Lock()
	v.d.note("v2 Wait %v", r.GetUids())
	v.d.mu.Unlock()
	out := new(pb2.WaitResponse)
	err := v.d.follow(ctx, r.GetUids(), func(now []*pb2.MovementStatus) error {
		out.Movements = now
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (v version2) Cancel(_ context.Context, r *pb2.CancelRequest) (*pb2.CancelResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v2 Cancel %v", r.GetUids())
	all, err := d.find(r.GetUids())
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		m.cancel()
	}
	d.wake()
	return new(pb2.CancelResponse), nil
}

func (v version2) Delete(_ context.Context, r *pb2.DeleteRequest) (*pb2.DeleteResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v2 Delete %v", r.GetUids())
	all, err := d.find(r.GetUids())
	if err != nil {
		return nil, err
	}
	for _, m := range all {
		if !m.ended() {
			return nil, pb2.NewError(pb2.ErrorReason_MOVEMENT_ACTIVE, fmt.Sprintf("data movement %q has not ended", m.uid), nil)
		}
	}
	for _, m := range all {
		delete(d.movements, m.uid)
	}
	return new(pb2.DeleteResponse), nil
}

// status returns the current status of m.
func (m *movement) status() *pb2.MovementStatus {
	s := m.now()
	out := &pb2.MovementStatus{
		Uid: m.uid, BatchUid: m.batch, State: s.state, Result: s.result, Message: valid(s.message),
		Source: "/rabbit" + m.source, Destination: m.destination,
	}
	if s.state == pb2.MovementState_MOVEMENT_STATE_PENDING {
		return out
	}
	out.StartTime = timestamppb.New(Started)
	out.CommandStatus = &pb2.CommandStatus{
		Command: "mpirun dcp", Progress: &s.percent, LastMessage: valid(s.last), LastMessageTime: timestamppb.New(Started),
		ElapsedTime: durationpb.New(time.Duration(s.percent) * 40 * time.Millisecond), Rate: s.rate,
	}
	if m.ended() {
		out.EndTime = timestamppb.New(Ended)
	}
	return out
}

// valid replaces what the protocol cannot carry.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }
