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

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
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
	check       *SelfCheck
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
	r.stop, r.check = cancel, NewSelfCheck(l)
	var served error
	go func() {
		defer close(r.ended)
		served = Serve(ctx, r.s, Transport{
			Listener: l, MaxMessage: 64 << 10, MaxMemory: rigMemory, Handshake: 5 * time.Second, Shutdown: func() time.Duration { return time.Duration(r.shutdown.Load()) }, Log: o.Log,
			Idle: o.Idle, Check: r.check, meters: &r.meters,
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

var wire7 = &v1.DataMovementWorkflow{Name: "job7", Namespace: "default"}

func wireWish() *v1.DataMovementCreateRequest {
	return &v1.DataMovementCreateRequest{Workflow: wire7, Source: wish.Source, Destination: wish.Destination, Slots: -1, MaxSlots: -1}
}

func TestVersion1(t *testing.T) {
	r := serveRig(t)
	m, ctx := v1.NewDataMoverClient(r.dial(t)), t.Context()
	if v, err := m.Version(ctx, new(emptypb.Empty)); err != nil || len(v.ApiVersions) != 1 || v.ApiVersions[0] != "1" {
		t.Errorf("version %v, %v", v, err)
	}
	c, err := m.Create(ctx, wireWish())
	if err != nil || c.Status != v1.DataMovementCreateResponse_SUCCESS || c.Uid == "" || c.Message != "" {
		t.Fatalf("create %v, %v", c, err)
	}
	st, err := m.Status(ctx, &v1.DataMovementStatusRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || st.State != v1.DataMovementStatusResponse_PENDING || st.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS || st.CommandStatus != nil {
		t.Errorf("status %v, %v", st, err)
	}
	d, err := m.Delete(ctx, &v1.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || d.Status != v1.DataMovementDeleteResponse_ACTIVE {
		t.Errorf("delete %v, %v", d, err)
	}
	ca, err := m.Cancel(ctx, &v1.DataMovementCancelRequest{Workflow: wire7, Uid: c.Uid})
	if err != nil || ca.Status != v1.DataMovementCancelResponse_SUCCESS {
		t.Errorf("cancel %v, %v", ca, err)
	}
	if d, err = m.Delete(ctx, &v1.DataMovementDeleteRequest{Workflow: wire7, Uid: c.Uid}); err != nil || d.Status != v1.DataMovementDeleteResponse_SUCCESS {
		t.Errorf("delete %v, %v", d, err)
	}
	if l, err := m.List(ctx, &v1.DataMovementListRequest{Workflow: wire7}); err != nil || len(l.Uids) != 0 {
		t.Errorf("list %v, %v", l, err)
	}
}

// Early clients leave everything out; nobody may crash the daemon by that.
func TestEmptyRequests(t *testing.T) {
	m, ctx := v1.NewDataMoverClient(serveRig(t).dial(t)), t.Context()
	if c, err := m.Create(ctx, new(v1.DataMovementCreateRequest)); err != nil || c.Status != v1.DataMovementCreateResponse_INVALID || !strings.Contains(c.Message, "workflow") {
		t.Errorf("create %v, %v", c, err)
	}
	if s, err := m.Status(ctx, new(v1.DataMovementStatusRequest)); err != nil || s.Status != v1.DataMovementStatusResponse_INVALID || s.State != v1.DataMovementStatusResponse_UNKNOWN_STATE {
		t.Errorf("status %v, %v", s, err)
	}
	if c, err := m.Cancel(ctx, new(v1.DataMovementCancelRequest)); err != nil || c.Status != v1.DataMovementCancelResponse_INVALID {
		t.Errorf("cancel %v, %v", c, err)
	}
	if d, err := m.Delete(ctx, new(v1.DataMovementDeleteRequest)); err != nil || d.Status != v1.DataMovementDeleteResponse_INVALID {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.List(ctx, new(v1.DataMovementListRequest)); status.Code(err) != codes.InvalidArgument {
		t.Errorf("list %v", err)
	}
}

func TestRequestKey(t *testing.T) {
	m := v1.NewDataMoverClient(serveRig(t).dial(t))
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
	r := serveRig(t)
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
		t.Errorf("over the limit: %v", err)
	}
	r.uid.Store(1002)
	if err := call(); err != nil {
		t.Errorf("another user: %v", err)
	}
}

func TestStreamLimit(t *testing.T) {
	r := serveRig(t, func(o *Options) { o.Settings.Limits.Streams = 1 })
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
	r.stop() // a shutdown does not outwait the wait
	if err := <-waited; err != nil {
		t.Errorf("the waiting request at the shutdown: %v", err)
	}
}

func TestVersion2(t *testing.T) {
	r := serveRig(t)
	m, ctx := v2.NewDataMoverClient(r.dial(t)), t.Context()
	w := &v2.Workflow{Name: "job7", Namespace: "default"}
	batch := &v2.CreateBatchRequest{Workflow: w, RequestKey: "k", Pairs: []*v2.CopyPair{
		{Source: mount0 + "/a", Destination: "/lus/global/a"}, {Source: mount0 + "/b", Destination: "/nowhere/b"}, {Source: mount0 + "/c", Destination: "/lus/global/c"},
	}}
	b, err := m.CreateBatch(ctx, batch)
	if err != nil || len(b.Results) != 3 || b.Uid == "" || b.Results[0].Uid == "" || b.Results[1].Error.GetReason() != v2.ErrorReason_DESTINATION_NOT_FOUND {
		t.Fatalf("batch %v, %v", b, err)
	}
	if again, err := m.CreateBatch(ctx, batch); err != nil || again.Uid != b.Uid || again.Results[2].Uid != b.Results[2].Uid {
		t.Errorf("repeated %v, %v", again, err)
	}
	watch, err := m.Watch(ctx, &v2.WatchRequest{Workflow: w, Uids: []string{b.Uid}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := watch.Recv()
	if err != nil || len(first.Movements) != 2 || first.Movements[0].State != v2.MovementState_MOVEMENT_STATE_PENDING || first.Movements[0].BatchUid != b.Uid {
		t.Fatalf("first %v, %v", first, err)
	}
	if _, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != v2.ErrorReason_MOVEMENT_ACTIVE {
		t.Errorf("delete: %v", err)
	}
	r.set(b.Results[0].Uid, running)
	next, err := watch.Recv()
	if err != nil || len(next.Movements) != 1 || next.Movements[0].State != v2.MovementState_MOVEMENT_STATE_RUNNING {
		t.Errorf("next %v, %v", next, err)
	}
	if c, err := m.Cancel(ctx, &v2.CancelRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(c.Uids) != 2 {
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
		ended, err := m.Wait(ctx, &v2.WaitRequest{Workflow: w, Uids: []string{uid}})
		if err != nil || len(ended.Movements) != n || ended.Movements[0].Result != v2.MovementResult_MOVEMENT_RESULT_CANCELLED {
			t.Errorf("wait %v, %v", ended, err)
		}
	}
	if d, err := m.Delete(ctx, &v2.DeleteRequest{Workflow: w, Uids: []string{b.Uid}}); err != nil || len(d.Uids) != 2 {
		t.Errorf("delete %v, %v", d, err)
	}
	if _, err := m.Wait(ctx, &v2.WaitRequest{Workflow: w, Uids: []string{b.Uid}}); reason(err) != v2.ErrorReason_MOVEMENT_NOT_FOUND {
		t.Errorf("wait for nothing: %v", err)
	}
}

func reason(err error) v2.ErrorReason {
	r, _ := v2.Reason(err)
	return r
}

func TestSimulated(t *testing.T) {
	sim := &simulated{requests: make(map[string]*simRequest)}
	ctx := t.Context()
	c, _ := sim.Create(ctx, &v1.DataMovementCreateRequest{StoreStdout: true})
	status := func() *v1.DataMovementStatusResponse {
		s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: c.Uid})
		return s
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_RUNNING || s.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS ||
		s.EndTime != "" || s.CommandStatus.Progress != 50 || s.Message != "Request "+c.Uid+" in progress" {
		t.Errorf("first %v", s)
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_COMPLETED || s.Status != v1.DataMovementStatusResponse_SUCCESS || s.EndTime == "" || s.CommandStatus.Progress != 100 {
		t.Errorf("second %v", s)
	}
	sim.Cancel(ctx, &v1.DataMovementCancelRequest{Uid: c.Uid})
	if s := status(); s.State != v1.DataMovementStatusResponse_CANCELLING || s.Status != v1.DataMovementStatusResponse_UNKNOWN_STATUS {
		t.Errorf("cancelling %v", s)
	}
	if s := status(); s.State != v1.DataMovementStatusResponse_COMPLETED || s.Status != v1.DataMovementStatusResponse_CANCELLED {
		t.Errorf("cancelled %v", s)
	}
	if d, _ := sim.Delete(ctx, &v1.DataMovementDeleteRequest{Uid: c.Uid}); d.Status != v1.DataMovementDeleteResponse_SUCCESS || d.Message != "Request "+c.Uid+" deleted successfully" {
		t.Errorf("delete %v", d)
	}
	for uid, want := range map[string]v1.DataMovementStatusResponse_Status{c.Uid: v1.DataMovementStatusResponse_NOT_FOUND, "nonsense": v1.DataMovementStatusResponse_INVALID} {
		if s, _ := sim.Status(ctx, &v1.DataMovementStatusRequest{Uid: uid}); s.Status != want {
			t.Errorf("%s: %v", uid, s)
		}
	}
}
