package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// rig is a served socket. Connections are those of the user uid at the time.
type rig struct {
	*cluster
	s    *Service
	log  *lines
	path string
	uid  atomic.Uint32
	stop context.CancelFunc

	ended    chan struct{}
	shutdown atomic.Int64

	connections *unixsocket.Limiter
	pulse       *Pulse
	meters      meters
}

const rigMemory = 256 << 10

// held is what the requests of a user take.
func (r *rig) held(uid uint32) int64 {
	r.meters.mu.Lock()
	defer r.meters.mu.Unlock()
	if m := r.meters.users[uid]; m != nil {
		return m.held
	}
	return 0
}

func serveRig(t *testing.T, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{cluster: newCluster(), log: new(lines), path: filepath.Join(t.TempDir(), "s"), ended: make(chan struct{})}
	r.uid.Store(1001)
	r.meters.wait = 100 * time.Millisecond
	r.shutdown.Store(int64(soon))
	o := Options{Node: node, SystemConfiguration: "default", Client: r.cluster, Settings: settings(t), Log: slog.New(slog.NewTextHandler(r.log, nil))}
	for _, f := range change {
		f(&o)
	}
	r.s = New(o)
	r.connections = unixsocket.NewLimiter(unixsocket.LimiterOptions{What: "connections", User: unixsocket.Quota{Slots: 3}})
	l, err := unixsocket.Listen(unixsocket.Options{
		Path: r.path, Log: o.Log, Limiter: r.connections, OverLimit: 1, Idle: o.Idle,
		PeerOf: func(net.Conn) (unixsocket.Peer, error) {
			return unixsocket.Peer{UID: r.uid.Load(), GID: 100, PID: 7}, nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.pulse = cancel, NewPulse(l)
	var served error
	go func() {
		defer close(r.ended)
		served = Serve(ctx, r.s, Transport{
			Listener: l, MaxMessage: 64 << 10, MaxMemory: rigMemory, Handshake: 5 * time.Second, Shutdown: func() time.Duration { return time.Duration(r.shutdown.Load()) }, Log: o.Log,
			Idle: o.Idle, Pulse: r.pulse, meters: &r.meters,
		})
	}()
	t.Cleanup(func() {
		cancel()
		<-r.ended
		if served != nil {
			t.Errorf("Serve: %v", served)
		}
	})
	return r
}

func (r *rig) dial(t *testing.T) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("unix://"+r.path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

var wire7 = &pb.DataMovementWorkflow{Name: "job7", Namespace: "default"}

func wireWish() *pb.DataMovementCreateRequest {
	return &pb.DataMovementCreateRequest{Workflow: wire7, Source: wish.Source, Destination: wish.Destination, Slots: -1, MaxSlots: -1}
}

func TestVersion1(t *testing.T) {
	r := serveRig(t)
	m, ctx := pb.NewDataMoverClient(r.dial(t)), t.Context()
	if v, err := m.Version(ctx, new(emptypb.Empty)); err != nil || len(v.ApiVersions) != 1 || v.ApiVersions[0] != "1" {
		t.Errorf("version %v, %v", v, err)
	}
	c, err := m.Create(ctx, wireWish())
	if err != nil || c.Status != pb.DataMovementCreateResponse_SUCCESS || c.Uid == "" || c.Message != "" {
		t.Fatalf("create %v, %v", c, err)
	}
	st, err := m.Status(ctx, &pb.DataMovementStatusRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || st.State != pb.DataMovementStatusResponse_PENDING || st.Status != pb.DataMovementStatusResponse_UNKNOWN_STATUS || st.CommandStatus != nil {
		t.Errorf("status %v, %v", st, err)
	}
	d, err := m.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || d.Status != pb.DataMovementDeleteResponse_ACTIVE {
		t.Errorf("delete %v, %v", d, err)
	}
	ca, err := m.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || ca.Status != pb.DataMovementCancelResponse_SUCCESS {
		t.Errorf("cancel %v, %v", ca, err)
	}
	if d, err = m.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid}); err != nil || d.Status != pb.DataMovementDeleteResponse_SUCCESS {
		t.Errorf("delete %v, %v", d, err)
	}
	if l, err := m.List(ctx, &pb.DataMovementListRequest{Workflow: wire7}); err != nil || len(l.Uids) != 0 {
		t.Errorf("list %v, %v", l, err)
	}
}

// Early clients leave everything out; nobody may crash the daemon by that.
func TestEmptyRequests(t *testing.T) {
	m, ctx := pb.NewDataMoverClient(serveRig(t).dial(t)), t.Context()
	if c, err := m.Create(ctx, new(pb.DataMovementCreateRequest)); err != nil || c.Status != pb.DataMovementCreateResponse_INVALID || !strings.Contains(c.Message, "workflow") {
		t.Errorf("create %v, %v", c, err)
	}
	if s, err := m.Status(ctx, new(pb.DataMovementStatusRequest)); err != nil || s.Status != pb.DataMovementStatusResponse_INVALID || s.State != pb.DataMovementStatusResponse_UNKNOWN_STATE {
		t.Errorf("status %v, %v", s, err)
	}
	if c, err := m.Cancel(ctx, new(pb.DataMovementCancelRequest)); err != nil || c.Status != pb.DataMovementCancelResponse_INVALID {
		t.Errorf("cancel %v, %v", c, err)
	}
	if d, err := m.Delete(ctx, new(pb.DataMovementDeleteRequest)); err != nil || d.Status != pb.DataMovementDeleteResponse_INVALID {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.List(ctx, new(pb.DataMovementListRequest)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("list %v", err)
	}
}

func TestRequestKey(t *testing.T) {
	m := pb.NewDataMoverClient(serveRig(t).dial(t))
	ctx := metadata.AppendToOutgoingContext(t.Context(), KeyMetadata, "k1")
	a, err1 := m.Create(ctx, wireWish())
	b, err2 := m.Create(ctx, wireWish())
	if err1 != nil || err2 != nil || a.Uid != b.Uid || a.Uid == "" {
		t.Errorf("%v %v; %v %v", a, err1, b, err2)
	}
}

func TestGate(t *testing.T) {
	r := serveRig(t)
	conn, ctx := r.dial(t), t.Context()
	m := pb.NewDataMoverClient(conn)
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
	r := serveRig(t)
	call := func() error {
		_, err := pb.NewDataMoverClient(r.dial(t)).Version(t.Context(), new(emptypb.Empty))
		return err
	}
	for i := range 3 {
		if err := call(); err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
	}
	if err := call(); status.Code(err) != codes.ResourceExhausted || r.log.count("event=dm-refused") != 1 {
		t.Errorf("over the limit: %v", err)
	}
	r.uid.Store(1002)
	if err := call(); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func TestStreamLimit(t *testing.T) {
	r := serveRig(t, func(o *Options) { o.Settings.Limits.Streams = 1 })
	m := pb.NewDataMoverClient(r.dial(t))
	c, err := m.Create(t.Context(), wireWish())
	if err != nil {
		t.Fatal(err)
	}
	waited := make(chan error, 1)
	go func() {
		_, err := m.Status(t.Context(), &pb.DataMovementStatusRequest{Uid: c.Uid, MaxWaitTime: -1})
		waited <- err
	}()
	for n := 0; n == 0; n, _ = r.s.waiters.InUse(1001) {
		time.Sleep(time.Millisecond)
	}
	if _, err := m.Version(t.Context(), new(emptypb.Empty)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("second request: %v", err)
	}
	r.stop() // a shutdown does not outwait the wait
	if err := <-waited; err != nil {
		t.Errorf("the waiting request at the shutdown: %v", err)
	}
}

func TestVersion2(t *testing.T) {
	r := serveRig(t)
	m, ctx := pb2.NewDataMoverClient(r.dial(t)), t.Context()
	w := &pb2.Workflow{Name: "job7", Namespace: "default"}
	batch := &pb2.CreateBatchRequest{Workflow: w, RequestKey: "k", Pairs: []*pb2.CopyPair{
		{Source: mount0 + "/a", Destination: "/lus/global/a"}, {Source: mount0 + "/b", Destination: "/nowhere/b"}, {Source: mount0 + "/c", Destination: "/lus/global/c"},
	}}
	b, err := m.CreateBatch(ctx, batch)
	if err != nil || len(b.Results) != 3 || b.Uid == "" || b.Results[0].Uid == "" || b.Results[1].Error.GetReason() != pb2.ErrorReason_DESTINATION_NOT_FOUND {
		t.Fatalf("batch %v, %v", b, err)
	}
	if again, err := m.CreateBatch(ctx, batch); err != nil || again.Uid != b.Uid || again.Results[2].Uid != b.Results[2].Uid {
		t.Errorf("repeated %v, %v", again, err)
	}
	watch, err := m.Watch(ctx, &pb2.WatchRequest{Workflow: w, Uids: []string{b.Uid}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || len(first.Movements) != 2 || first.Movements[0].State != pb2.MovementState_MOVEMENT_STATE_PENDING || first.Movements[0].BatchUid != b.Uid {
		t.Fatalf("first %v, %v", first, err)
	}
	if _, err := m.Delete(ctx, &pb2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != pb2.ErrorReason_MOVEMENT_ACTIVE {
		t.Errorf("delete: %v", err)
	}
	r.set(b.Results[0].Uid, running)
	next, err := watch.Recv()
	if err != nil || len(next.Movements) != 1 || next.Movements[0].State != pb2.MovementState_MOVEMENT_STATE_RUNNING {
		t.Errorf("next %v, %v", next, err)
	}
	if c, err := m.Cancel(ctx, &pb2.CancelRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(c.Uids) != 2 {
		t.Errorf("cancel %v, %v", c, err)
	}
	r.set(b.Results[0].Uid, finished(nnf.MovementCancelled))
	for err = nil; err == nil; {
		_, err = watch.Recv()
	}
	if err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
	// One was cancelled before its start, and is remembered.
	for uid, n := range map[string]int{b.Results[2].Uid: 1, b.Uid: 2} {
		ended, err := m.Wait(ctx, &pb2.WaitRequest{Workflow: w, Uids: []string{uid}})
		if err != nil || len(ended.Movements) != n || ended.Movements[0].Result != pb2.MovementResult_MOVEMENT_RESULT_CANCELLED {
			t.Errorf("wait %v, %v", ended, err)
		}
	}
	if d, err := m.Delete(ctx, &pb2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(d.Uids) != 2 {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.Wait(ctx, &pb2.WaitRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != pb2.ErrorReason_MOVEMENT_NOT_FOUND {
		t.Errorf("wait for nothing: %v", err)
	}
}

func reason(err error) pb2.ErrorReason {
	r, _ := pb2.Reason(err)
	return r
}

func TestSimulated(t *testing.T) {
	sim := &simulated{requests: make(map[string]*simRequest)}
	ctx := t.Context()
	c, _ := sim.Create(ctx, &pb.DataMovementCreateRequest{StoreStdout: true})
	status := func() *pb.DataMovementStatusResponse {
		s, _ := sim.Status(ctx, &pb.DataMovementStatusRequest{Uid: c.Uid})
		return s
	}
	if s := status(); s.State != pb.DataMovementStatusResponse_RUNNING || s.Status != pb.DataMovementStatusResponse_UNKNOWN_STATUS ||
		s.EndTime != "" || s.CommandStatus.Progress != 50 || s.Message != "Request "+c.Uid+" in progress" {
		t.Errorf("first %v", s)
	}
	if s := status(); s.State != pb.DataMovementStatusResponse_COMPLETED || s.Status != pb.DataMovementStatusResponse_SUCCESS || s.EndTime == "" || s.CommandStatus.Progress != 100 {
		t.Errorf("second %v", s)
	}
	sim.Cancel(ctx, &pb.DataMovementCancelRequest{Uid: c.Uid})
	if s := status(); s.State != pb.DataMovementStatusResponse_CANCELLING || s.Status != pb.DataMovementStatusResponse_UNKNOWN_STATUS {
		t.Errorf("cancelling %v", s)
	}
	if s := status(); s.State != pb.DataMovementStatusResponse_COMPLETED || s.Status != pb.DataMovementStatusResponse_CANCELLED {
		t.Errorf("cancelled %v", s)
	}
	if d, _ := sim.Delete(ctx, &pb.DataMovementDeleteRequest{Uid: c.Uid}); d.Status != pb.DataMovementDeleteResponse_SUCCESS || d.Message != "Request "+c.Uid+" deleted successfully" {
		t.Errorf("delete %v", d)
	}
	for uid, want := range map[string]pb.DataMovementStatusResponse_Status{c.Uid: pb.DataMovementStatusResponse_NOT_FOUND, "nonsense": pb.DataMovementStatusResponse_INVALID} {
		if s, _ := sim.Status(ctx, &pb.DataMovementStatusRequest{Uid: uid}); s.Status != want {
			t.Errorf("%s: %v", uid, s)
		}
	}
}
