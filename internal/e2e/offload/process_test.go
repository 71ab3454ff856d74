package offload

import (
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var processBehaviours = []behaviour{
	{"a shutdown aborts no request", "9.23", both, shutdown},
	{"a client continues after a restart", "9.23", both, restart},
	{"the health service", "access/health", one, healthy},
}

// Waits return the current state, running requests finish, and the socket is removed.
func shutdown(s *env) {
	s.usual()
	uid := s.create()
	answer := s.waits(uid, -1)
	second := make(chan error, 1)
	watch, err := s.me2.Watch(s.ctx(), &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.Must(err)
	_, err = watch.Recv()
	s.Must(err)
	go func() { _, err := watch.Recv(); second <- err }()
	s.Proxy.ClearRequests()
	s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Delay: time.Second})
	made := make(chan *pb.DataMovementCreateResponse, 1)
	ctx := s.ctx()
	go func() {
		r, err := s.me.Create(ctx, s.usualRequest())
		if err != nil {
			s.t.Error("the running create: ", err)
		}
		made <- r
	}()
	_, err = s.Proxy.WaitRequest(s.ctx(), func(r *lab.Request) bool { return r.Class == lab.ClassCreate })
	s.Must(err)
	s.Must(s.d.Term())
	s.answered("the wait", <-answer, nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
	s.code("the stream", <-second, codes.Unavailable, pb2.ErrorReason_UNAVAILABLE)
	if r := <-made; r.GetStatus() != createOK || s.Movement(r.GetUid()) == nil {
		s.t.Errorf("the running create: %v", r)
	}
	if code, err := s.d.Wait(s.ctx()); code != 0 || err != nil {
		s.t.Errorf("exit code %d, %v", code, err)
	}
	if _, err := os.Lstat(s.Socket); !os.IsNotExist(err) {
		s.t.Errorf("the socket was not removed: %v", err)
	}
}

func restart(s *env) {
	s.usual()
	uid := s.create()
	s.is(uid, pending, unknownStatus)
	me := s.me
	s.d.Kill9()
	s.start()
	s.SetMovement(uid, finished("Success", nil))
	r, err := me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1}, grpc.WaitForReady(true))
	if err != nil || r.State != completed || r.Status != success {
		s.t.Errorf("the same client: %v, %v", r, err)
	}
	s.deletes(uid, deleteOK)
}

func healthy(s *env) {
	s.usual()
	h, err := grpc_health_v1.NewHealthClient(s.connect(eve)).Check(s.ctx(), new(grpc_health_v1.HealthCheckRequest))
	s.answered("health", h, err, &grpc_health_v1.HealthCheckResponse{Status: grpc_health_v1.HealthCheckResponse_SERVING})
}

// reload makes the daemon load a new configuration.
func (s *env) reload(config string) {
	s.t.Helper()
	s.Write("config.toml", []byte(config))
	before := s.reloads()
	s.Must(s.d.Hup())
	wait.Within(s.t, patience, "the configuration is read again", func() bool { return s.reloads() > before })
}

func (s *env) reloads() (n int) {
	for _, line := range s.d.Log() {
		if strings.Contains(line.Text, "configuration reloaded") {
			n++
		}
	}
	return n
}

// run runs the program until it exits.
func (s *env) run(args ...string) (output string, code int) {
	s.t.Helper()
	program, err := lab.Binary("nnf-dm")
	s.Must(err)
	cmd := exec.CommandContext(s.ctx(), program, args...)
	out, _ := cmd.CombinedOutput()
	return string(out), cmd.ProcessState.ExitCode()
}
