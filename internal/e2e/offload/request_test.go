package offload

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Short names of the protocol's.
const (
	createOK      = pb.DataMovementCreateResponse_SUCCESS
	createFailed  = pb.DataMovementCreateResponse_FAILED
	createInvalid = pb.DataMovementCreateResponse_INVALID

	pending      = pb.DataMovementStatusResponse_PENDING
	starting     = pb.DataMovementStatusResponse_STARTING
	isRunning    = pb.DataMovementStatusResponse_RUNNING
	completed    = pb.DataMovementStatusResponse_COMPLETED
	cancelling   = pb.DataMovementStatusResponse_CANCELLING
	unknownState = pb.DataMovementStatusResponse_UNKNOWN_STATE

	invalid       = pb.DataMovementStatusResponse_INVALID
	notFound      = pb.DataMovementStatusResponse_NOT_FOUND
	success       = pb.DataMovementStatusResponse_SUCCESS
	failed        = pb.DataMovementStatusResponse_FAILED
	cancelled     = pb.DataMovementStatusResponse_CANCELLED
	unknownStatus = pb.DataMovementStatusResponse_UNKNOWN_STATUS

	deleteInvalid  = pb.DataMovementDeleteResponse_INVALID
	deleteNotFound = pb.DataMovementDeleteResponse_NOT_FOUND
	deleteOK       = pb.DataMovementDeleteResponse_SUCCESS
	deleteActive   = pb.DataMovementDeleteResponse_ACTIVE

	cancelInvalid  = pb.DataMovementCancelResponse_INVALID
	cancelNotFound = pb.DataMovementCancelResponse_NOT_FOUND
	cancelOK       = pb.DataMovementCancelResponse_SUCCESS
	cancelFailed   = pb.DataMovementCancelResponse_FAILED
)

type wish = pb.DataMovementCreateRequest

// named is the scene's workflow in a request.
func (s *env) named() *pb.DataMovementWorkflow {
	return &pb.DataMovementWorkflow{Name: s.job, Namespace: "default"}
}

func (s *env) named2() *pb2.Workflow { return &pb2.Workflow{Name: s.job, Namespace: "default"} }

// wish asks for a usual copy, but for the changes.
func (s *env) wish(changes ...func(*wish)) *wish {
	w := &wish{Workflow: s.named(), Source: s.path + "/out/", Destination: global + "/alice/", Slots: -1, MaxSlots: -1}
	for _, f := range changes {
		f(w)
	}
	return w
}

func from(path string) func(*wish) { return func(w *wish) { w.Source = path } }
func to(path string) func(*wish)   { return func(w *wish) { w.Destination = path } }

// create makes a movement, which must work.
func (s *env) create(changes ...func(*wish)) string {
	s.t.Helper()
	return s.createAs(s.me, changes...)
}

func (s *env) createAs(c pb.DataMoverClient, changes ...func(*wish)) string {
	s.t.Helper()
	r, err := c.Create(s.ctx(), s.wish(changes...))
	if err != nil || r.Status != createOK || r.Uid == "" || r.Message != "" {
		s.t.Fatalf("create: %v, %v", r, err)
	}
	return r.Uid
}

// refused makes none, and checks the whole answer.
func (s *env) refused(st pb.DataMovementCreateResponse_Status, message string, changes ...func(*wish)) {
	s.t.Helper()
	r, err := s.me.Create(s.ctx(), s.wish(changes...))
	s.answered("create", r, err, &pb.DataMovementCreateResponse{Status: st, Message: s.fill(message)})
}

// answered compares a whole response.
func (s *env) answered(what string, got proto.Message, err error, want proto.Message) {
	s.t.Helper()
	if err != nil || !proto.Equal(got, want) {
		s.t.Errorf("%s:\n got %v, %v\nwant %v", what, got, err, want)
	}
}

// code checks a gRPC error, and in version 2 its reason.
func (s *env) code(what string, err error, want codes.Code, reasons ...pb2.ErrorReason) {
	s.t.Helper()
	if status.Code(err) != want {
		s.t.Errorf("%s: %v, want %s", what, err, want)
	}
	if got, _ := pb2.Reason(err); len(reasons) > 0 && !slices.Contains(reasons, got) {
		s.t.Errorf("%s: the reason is %s, want %v", what, got, reasons)
	}
}

func (s *env) status(uid string, wait int64) *pb.DataMovementStatusResponse {
	s.t.Helper()
	r, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: wait})
	if err != nil {
		s.t.Fatal("status: ", err)
	}
	return r
}

// is waits until Status gives state and status.
func (s *env) is(uid string, state pb.DataMovementStatusResponse_State, st pb.DataMovementStatusResponse_Status) *pb.DataMovementStatusResponse {
	s.t.Helper()
	var r *pb.DataMovementStatusResponse
	wait.Within(s.t, patience, state.String()+" "+st.String(), func() bool {
		r = s.status(uid, 0)
		return r.State == state && r.Status == st
	})
	return r
}

func (s *env) cancels(uid string, want pb.DataMovementCancelResponse_Status) {
	s.t.Helper()
	r, err := s.me.Cancel(s.ctx(), &pb.DataMovementCancelRequest{Workflow: s.named(), Uid: uid})
	if err != nil || r.Status != want {
		s.t.Errorf("cancel: %v, %v, want %s", r, err, want)
	}
}

func (s *env) deletes(uid string, want pb.DataMovementDeleteResponse_Status) {
	s.t.Helper()
	r, err := s.me.Delete(s.ctx(), &pb.DataMovementDeleteRequest{Workflow: s.named(), Uid: uid})
	if err != nil || r.Status != want {
		s.t.Errorf("delete: %v, %v, want %s", r, err, want)
	}
}

func (s *env) lists(c pb.DataMoverClient, want ...string) {
	s.t.Helper()
	r, err := c.List(s.ctx(), &pb.DataMovementListRequest{Workflow: s.named()})
	want = slices.Sorted(slices.Values(want))
	if got := slices.Sorted(slices.Values(r.GetUids())); err != nil || !slices.Equal(got, want) {
		s.t.Errorf("list: %q, %v, want %q", got, err, want)
	}
}

// status2 is the status of one movement in version 2.
func (s *env) status2(uid string) *pb2.MovementStatus {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.ctx())
	defer cancel()
	stream, err := s.me2.Watch(ctx, &pb2.WatchRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.must(err)
	r, err := stream.Recv()
	if err != nil || len(r.Movements) != 1 {
		s.t.Fatalf("watch: %v, %v", r, err)
	}
	return r.Movements[0]
}
