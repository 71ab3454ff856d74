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

// Every copy starts at Started and ends at Ended.
var (
	Started = time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC)
	Ended   = Started.Add(4 * time.Second)
)

func (v version1) Version(context.Context, *emptypb.Empty) (*pb.DataMovementVersionResponse, error) {
	v.d.mu.Lock()
	defer v.d.mu.Unlock()
	return &pb.DataMovementVersionResponse{Version: v.d.version, ApiVersions: []string{pb.APIVersion}}, nil
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
	if m.ended() { // otherwise 0, which is INVALID, as from old daemons
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

// faults are the errors that refuse requests, by the last component of the source.
var faults = map[string]struct {
	reason pb2.ErrorReason
	text   string
}{
	"wrong":   {pb2.ErrorReason_INVALID_FIELD, `source "/mnt/wrong" is refused: it is longer than 4095 bytes on the rabbit`},
	"denied":  {pb2.ErrorReason_ACCESS_DENIED, "the workflow belongs to user or group 0, and copies as root are not allowed on this node"},
	"foreign": {pb2.ErrorReason_WORKFLOW_NOT_FOUND, `could not find workflow "default/job"`},
	"nomount": {pb2.ErrorReason_MOUNT_NOT_FOUND, "source path '/mnt/nomount' not found in list of client mounts"},
	"busy":    {pb2.ErrorReason_LIMIT_EXCEEDED, "limit exceeded: limits.creates_per_second in the daemon's configuration"},
	"down":    {pb2.ErrorReason_UNAVAILABLE, "a request to the API server failed: try again; the daemon's log has the cause"},
	"late":    {pb2.ErrorReason_TIMEOUT, "the request timed out: try again"},
	"mute":    {pb2.ErrorReason_PROFILE_NOT_FOUND, ""},
}

func (v version2) CreateBatch(ctx context.Context, r *pb2.CreateBatchRequest) (*pb2.CreateBatchResponse, error) {
	d := v.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if end, ok := ctx.Deadline(); ok {
		d.limit = time.Until(end)
	}
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

// find returns the movements with these ids; the lock is held.
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

// stepTime is the duration of a step.
const stepTime = 20 * time.Millisecond

// follow calls show with all movements, first immediately and then after each change,
// until all have ended.
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

// pageStates is the maximum number of statuses in one message of Watch.
const pageStates = 64

func (v version2) Watch(r *pb2.WatchRequest, stream grpc.ServerStreamingServer[pb2.WatchResponse]) error {
	v.d.mu.Lock()
	v.d.note("v2 Watch %v", r.GetUids())
	v.d.mu.Unlock()
	sent := false
	return v.d.follow(stream.Context(), r.GetUids(), func(now []*pb2.MovementStatus) error {
		if !sent {
			sent = true
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
			return nil, pb2.NewError(pb2.ErrorReason_MOVEMENT_ACTIVE, fmt.Sprintf("data movement %s has not ended: wait until it ends, or cancel it first", m.uid), nil)
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

// valid replaces bytes that protocol buffers cannot encode in a string.
func valid(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

// described are the workflows that Describe does not describe as usual, by name.
var described = map[string]func(*pb2.DescribeResponse) error{
	"gone": func(*pb2.DescribeResponse) error {
		return pb2.NewError(pb2.ErrorReason_WORKFLOW_NOT_FOUND, `could not find workflow "default/gone"`, nil)
	},
	"down": func(*pb2.DescribeResponse) error {
		return pb2.NewError(pb2.ErrorReason_UNAVAILABLE, "a request to the API server failed: try again; the daemon's log has the cause", nil)
	},
	"root": func(*pb2.DescribeResponse) error {
		return pb2.NewError(pb2.ErrorReason_ACCESS_DENIED, "the workflow belongs to user or group 0, and copies as root are not allowed on this node", nil)
	},
	"before": func(*pb2.DescribeResponse) error {
		return status.Error(codes.Unimplemented, "unknown method Describe for service datamovement.v2.DataMover")
	},
	"late": func(r *pb2.DescribeResponse) error {
		r.State, r.Status, r.Storage = "PostRun", "DriverWait", nil
		r.Error = &pb2.Problem{Reason: pb2.ErrorReason_WORKFLOW_STATE, Message: "Workflow must be in 'PreRun' state and 'Completed' status"}
		return nil
	},
	"waiting": func(r *pb2.DescribeResponse) error {
		r.Storage[0].Ready = false
		r.Storage[0].Error = &pb2.Problem{Reason: pb2.ErrorReason_MOUNT_NOT_READY, Message: "ClientMount node-1/default-waiting-0-computes: '/mnt/nnf/1-0' is not mounted, or is being unmounted"}
		return nil
	},
	"xfs": func(r *pb2.DescribeResponse) error {
		r.Storage = r.Storage[1:]
		return nil
	},
	"bare": func(r *pb2.DescribeResponse) error {
		r.Storage, r.Destinations = nil, nil
		return nil
	},
	"full": func(r *pb2.DescribeResponse) error {
		*r.Limits.MovementsUsed, *r.Limits.MovementBytesUsed = r.Limits.Movements, r.Limits.Movements<<11
		return nil
	},
	"partial": func(r *pb2.DescribeResponse) error {
		failed := &pb2.Problem{Reason: pb2.ErrorReason_UNAVAILABLE, Message: "a request to the API server failed: try again; the daemon's log has the cause"}
		r.Storage, r.StorageError, r.Destinations, r.DestinationsError = nil, failed, nil, failed
		r.Limits.MovementsUsed, r.Limits.MovementBytesUsed = nil, nil
		return nil
	},
}

func (v version2) Describe(ctx context.Context, r *pb2.DescribeRequest) (*pb2.DescribeResponse, error) {
	d := v.d
	if r.GetWorkflow().GetName() == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.note("v2 Describe %v", r.GetWorkflow())
	count, bytes := int64(len(d.movements)), int64(len(d.movements))<<11
	out := &pb2.DescribeResponse{
		Node: "node-1", State: "PreRun", Status: "Completed",
		Storage: []*pb2.Storage{
			{Path: "/mnt/nnf/1-0", Type: "gfs2", Ready: true},
			{Path: "/mnt/nnf/1-1", Type: "xfs", Ready: true, Error: &pb2.Problem{Reason: pb2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, Message: "filesystem not supported: 'xfs'", Metadata: map[string]string{"field": "source"}}},
		},
		Destinations: []*pb2.Destination{{Path: "/lus/global"}, {Path: "/lus/projects"}},
		Limits: &pb2.Limits{
			Movements: 5000, MovementsUsed: &count, MovementBytes: 16 << 20, MovementBytesUsed: &bytes, CreateBurst: 500, CreatesPerSecond: 50,
			BatchSize: 1000, MessageSize: 256 << 10, Streams: 2048, Waiters: 1024, Memory: 16 << 20, MaxWait: durationpb.New(time.Hour),
		},
	}
	if change := described[r.GetWorkflow().GetName()]; change != nil {
		if err := change(out); err != nil {
			return nil, err
		}
	}
	return out, nil
}
