package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

// soon is more than any answer takes here.
const soon = 30 * time.Second

func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// testServer is a served socket. Connections are those of the user uid at the time.
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

// held is what the requests of a user take.
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
	return &v1.DataMovementCreateRequest{Workflow: wire7, Source: wish.Source, Destination: wish.Destination, Slots: -1, MaxSlots: -1}
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

// many makes movements with long names.
func (r *testServer) many(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		r.put(started(fmt.Sprintf("nnf-dm-node-%0200d", i), 1001))
	}
}
