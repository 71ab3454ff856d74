package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	node   = "compute-01"
	rabbit = "rabbit-01"
	mount0 = "/mnt/nnf/U-0"
)

var (
	job7         = datamovement.WorkflowRef{Name: "job7", Namespace: "default"}
	usualRequest = datamovement.Request{Workflow: job7, Source: mount0 + "/out/", Destination: "/lus/global/alice/", Slots: -1, MaxSlots: -1}
)

// States and results of version 1.
const (
	pending       = v1.DataMovementStatusResponse_PENDING
	isRunning     = v1.DataMovementStatusResponse_RUNNING
	completed     = v1.DataMovementStatusResponse_COMPLETED
	cancelling    = v1.DataMovementStatusResponse_CANCELLING
	invalid       = v1.DataMovementStatusResponse_INVALID
	cancelled     = v1.DataMovementStatusResponse_CANCELLED
	unknownStatus = v1.DataMovementStatusResponse_UNKNOWN_STATUS
)

// lines is a log that can be read concurrently.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func settings(t *testing.T) Settings {
	t.Helper()
	choices, err := datamovement.NewOptions(datamovement.OptionsList, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return Settings{
		Policy: datamovement.Policy{RootMayAll: true}, Choices: choices, MaxWait: time.Hour, LookupExpiry: time.Minute,
		Limits: Limits{Streams: 100, Waiters: 2, CreatesPerSecond: 1, CreateBurst: 20, BatchSize: 5, Movements: 100, MovementBytes: 1 << 20},
	}
}

func newService(t *testing.T, c *cluster) (*Service, *lines) {
	t.Helper()
	log := new(lines)
	s := New(Options{Node: node, SystemConfiguration: "default", Client: c, Settings: settings(t), Log: slog.New(slog.NewTextHandler(log, nil))})
	t.Cleanup(s.Close)
	return s, log
}

func user(uid uint32) datamovement.Caller {
	return datamovement.Caller{UID: uid, GID: 100, PID: 7, RPC: "/test"}
}

// bubble runs f with a service in a synctest bubble.
func bubble(t *testing.T, f func(t *testing.T, s *Service, c *cluster, log *lines)) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster()
		s, log := newService(t, c)
		f(t, s, c, log)
	})
}

func created(t *testing.T, s *Service) string {
	t.Helper()
	uid, err := s.Create(t.Context(), user(1001), usualRequest)
	if err != nil {
		t.Fatal(err)
	}
	return uid
}

func wantState(t *testing.T, s *Service, uid string, wait int64, state v1.DataMovementStatusResponse_State, result v1.DataMovementStatusResponse_Status) {
	t.Helper()
	a, err := s.Status(t.Context(), user(1001), job7, uid, wait)
	if err != nil || a.State != state || a.Status != result {
		t.Errorf("Status: state %d, result %d, %v; want %d, %d", a.State, a.Status, err, state, result)
	}
}

// soon is longer than any response takes.
const soon = 30 * time.Second

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// testServer is a served socket. Connections belong to the user uid at that time.
type testServer struct {
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

const testMemory = 256 << 10

// held returns the memory of a user's requests.
func (r *testServer) held(uid uint32) int64 {
	r.meters.mu.Lock()
	defer r.meters.mu.Unlock()
	if m := r.meters.users[uid]; m != nil {
		return m.held
	}
	return 0
}

func startServer(t *testing.T, change ...func(*Options)) *testServer {
	t.Helper()
	r := &testServer{cluster: newCluster(), log: new(lines), path: filepath.Join(t.TempDir(), "s"), ended: make(chan struct{})}
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
			Listener: l, MaxMessage: 64 << 10, MaxMemory: testMemory, Handshake: 5 * time.Second, Shutdown: func() time.Duration { return time.Duration(r.shutdown.Load()) }, Log: o.Log,
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

func (r *testServer) dial(t *testing.T) *grpc.ClientConn {
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
	return &v1.DataMovementCreateRequest{Workflow: wire7, Source: usualRequest.Source, Destination: usualRequest.Destination, Slots: -1, MaxSlots: -1}
}

func reason(err error) v2.ErrorReason {
	r, _ := v2.Reason(err)
	return r
}

func (r *testServer) slots(uid string) (out [2]int) {
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

// many creates movements with long names.
func (r *testServer) many(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		r.put(started(fmt.Sprintf("nnf-dm-node-%0200d", i), 1001))
	}
}
