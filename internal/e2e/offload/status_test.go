package offload

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var statusBehaviours = []behaviour{
	{"the rabbit's statuses, in both versions", "4.4/3 4.4/4 4.4/5 7/finalizer 7/running 7/starting 7/progress 7/success 7/failure 7/invalid 7/minor 7/restart 9.10", both, rabbitStatuses},
	{"cancelling is reported until the end", "4.4/4 7/cancel-running", both, cancellingShows},
	{"a missing movement", "4.4/1 4.3", both, missingOne},
	{"the daemon's own writes are visible", "v2/Wait", both, ownWrites},
}

// statusCase is a status that a rabbit writes, with the expected responses.
type statusCase struct {
	name   string
	status fields
	want   *pb.DataMovementStatusResponse
	want2  *pb2.MovementStatus
}

// local formats a time like version 1.
func local(t time.Time) string { return t.Local().String() }

const (
	pending2   = pb2.MovementState_MOVEMENT_STATE_PENDING
	starting2  = pb2.MovementState_MOVEMENT_STATE_STARTING
	running2   = pb2.MovementState_MOVEMENT_STATE_RUNNING
	completed2 = pb2.MovementState_MOVEMENT_STATE_COMPLETED

	success2   = pb2.MovementResult_MOVEMENT_RESULT_SUCCESS
	failed2    = pb2.MovementResult_MOVEMENT_RESULT_FAILED
	invalid2   = pb2.MovementResult_MOVEMENT_RESULT_INVALID
	cancelled2 = pb2.MovementResult_MOVEMENT_RESULT_CANCELLED
	deleted2   = pb2.MovementResult_MOVEMENT_RESULT_DELETED
)

func statusCases() []statusCase {
	ended := startTime.Add(time.Minute)
	start, end := local(startTime), local(ended)
	start2, end2 := timestamppb.New(startTime), timestamppb.New(ended)
	command := fields{"command": "mpirun dcp", "progress": 73, "elapsedTime": "1m30.2519s", "lastMessage": "Copied 1 GiB (73%)\n", "lastMessageTime": fixture.Stamp(startTime.Add(time.Second))}
	commandV1 := &pb.DataMovementCommandStatus{
		Command: "mpirun dcp", Progress: 73, ElapsedTime: "1m30.251s", LastMessage: "Copied 1 GiB (73%)\n", LastMessageTime: local(startTime.Add(time.Second)),
	}
	commandV2 := &pb2.CommandStatus{
		Command: "mpirun dcp", Progress: proto.Int32(73), ElapsedTime: durationpb.New(90*time.Second + 251900*time.Microsecond),
		LastMessage: "Copied 1 GiB (73%)\n", LastMessageTime: timestamppb.New(startTime.Add(time.Second)),
	}
	empty, short := new(pb.DataMovementCommandStatus), &pb.DataMovementCommandStatus{Command: "mpirun dcp"}
	short2 := &pb2.CommandStatus{Command: "mpirun dcp"}
	fault := fields{"type": "User", "severity": "Minor", "debugMessage": "not yet"}
	return []statusCase{
		{"no status", nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus}, &pb2.MovementStatus{State: pending2}},
		{
			"a minor error, the rabbit retries", fields{"message": "not yet", "error": fault},
			&pb.DataMovementStatusResponse{State: pending, Status: unknownStatus}, &pb2.MovementStatus{State: pending2, Message: "not yet"},
		}, {
			"starting", fields{"state": "Starting", "startTime": fixture.Stamp(startTime)},
			&pb.DataMovementStatusResponse{State: starting, Status: unknownStatus, StartTime: start, CommandStatus: empty},
			&pb2.MovementStatus{State: starting2, StartTime: start2},
		}, {
			"running", running(nil),
			&pb.DataMovementStatusResponse{State: isRunning, Status: unknownStatus, StartTime: start, CommandStatus: short},
			&pb2.MovementStatus{State: running2, StartTime: start2, CommandStatus: short2},
		}, {
			"progress", running(fields{"commandStatus": command}),
			&pb.DataMovementStatusResponse{State: isRunning, Status: unknownStatus, StartTime: start, CommandStatus: commandV1},
			&pb2.MovementStatus{State: running2, StartTime: start2, CommandStatus: commandV2},
		}, {
			"the rabbit has restarted the copy", running(fields{"restarts": 2}),
			&pb.DataMovementStatusResponse{State: isRunning, Status: unknownStatus, StartTime: start, CommandStatus: short},
			&pb2.MovementStatus{State: running2, StartTime: start2, CommandStatus: short2, Restarts: 2},
		}, {
			"a start time and no state", fields{"startTime": fixture.Stamp(startTime)},
			&pb.DataMovementStatusResponse{State: unknownState, Status: unknownStatus, StartTime: start, CommandStatus: empty},
			&pb2.MovementStatus{StartTime: start2},
		}, {
			"success with output", finished("Success", fields{"message": "all of it", "commandStatus": command}),
			&pb.DataMovementStatusResponse{State: completed, Status: success, Message: "all of it", StartTime: start, EndTime: end, CommandStatus: commandV1},
			&pb2.MovementStatus{State: completed2, Result: success2, Message: "all of it", StartTime: start2, EndTime: end2, CommandStatus: commandV2},
		}, {
			"figures", finished("Success", fields{"commandStatus": fields{"items": 6, "directories": 1, "files": 4, "links": 1, "data": "1.5 GiB", "rate": "120 MiB/s", "seconds": "12.8"}}),
			&pb.DataMovementStatusResponse{State: completed, Status: success, StartTime: start, EndTime: end, CommandStatus: empty},
			&pb2.MovementStatus{State: completed2, Result: success2, StartTime: start2, EndTime: end2, CommandStatus: &pb2.CommandStatus{
				Items: proto.Int32(6), Directories: proto.Int32(1), Files: proto.Int32(4), Links: proto.Int32(1), Data: "1.5 GiB", Rate: "120 MiB/s", Seconds: "12.8",
			}},
		}, {
			"failure", finished("Failed", fields{"message": "exit status 1: no space", "error": fields{"type": "Internal", "severity": "Fatal", "debugMessage": "exit status 1"}}),
			&pb.DataMovementStatusResponse{State: completed, Status: failed, Message: "exit status 1: no space", StartTime: start, EndTime: end, CommandStatus: empty},
			&pb2.MovementStatus{State: completed2, Result: failed2, Message: "exit status 1: no space", StartTime: start2, EndTime: end2},
		}, {
			"cancelled", finished("Cancelled", nil),
			&pb.DataMovementStatusResponse{State: completed, Status: cancelled, StartTime: start, EndTime: end, CommandStatus: empty},
			&pb2.MovementStatus{State: completed2, Result: cancelled2, StartTime: start2, EndTime: end2},
		}, {
			"invalid, without times", fields{"state": "Finished", "status": "Invalid", "message": "no such profile", "error": fault},
			&pb.DataMovementStatusResponse{State: completed, Status: invalid, Message: "no such profile", CommandStatus: empty},
			&pb2.MovementStatus{State: completed2, Result: invalid2, Message: "no such profile"},
		}, {
			"only invalid", fields{"status": "Invalid"},
			&pb.DataMovementStatusResponse{State: unknownState, Status: invalid, CommandStatus: empty},
			&pb2.MovementStatus{},
		},
	}
}

func rabbitStatuses(s *env) {
	s.usual()
	for _, tt := range statusCases() {
		uid := s.create()
		s.takes(uid)
		if tt.status != nil {
			s.SetMovement(uid, tt.status)
		}
		tt.want2.Uid, tt.want2.Source, tt.want2.Destination = uid, s.onRabbit+"/out/", global+"/alice/"
		// The watch takes some time, and version 1 does not show all changes.
		var got *pb.DataMovementStatusResponse
		var got2 *pb2.MovementStatus
		_ = wait.For(s.ctx(), "both answers", func() (bool, error) {
			got, got2 = s.status(uid, 0), s.status2(uid)
			return proto.Equal(got, tt.want) && proto.Equal(got2, tt.want2), nil
		})
		s.answered(tt.name, got, nil, tt.want)
		s.answered(tt.name+", version 2", got2, nil, tt.want2)
		s.finalizers(uid)
	}
}

func cancellingShows(s *env) {
	s.usual()
	for _, state := range []string{"Starting", "Running"} {
		uid := s.create()
		s.takes(uid)
		s.SetMovement(uid, running(fields{"state": state}))
		s.is(uid, map[string]pb.DataMovementStatusResponse_State{"Starting": starting, "Running": isRunning}[state], unknownStatus)
		s.cancels(uid, cancelOK)
		if r := s.status(uid, 0); r.State != cancelling || r.Status != unknownStatus || r.CommandStatus.GetCommand() != "mpirun dcp" {
			s.t.Errorf("after the cancel: %v", r)
		}
		if m := s.status2(uid); m.State != pb2.MovementState_MOVEMENT_STATE_CANCELLING || m.Result != pb2.MovementResult_MOVEMENT_RESULT_UNSPECIFIED {
			s.t.Errorf("after the cancel: %v", m)
		}
		s.SetMovement(uid, finished("Cancelled", nil))
		s.is(uid, completed, cancelled)
		s.finalizers(uid)
	}
}

func missingOne(s *env) {
	s.usual()
	uid := s.k.prefix + "nope-" + s.Node
	for _, wait := range []int64{0, 1, -1} {
		s.answered("a missing one", s.status(uid, wait), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
	}
	for name, bad := range map[string]string{"no name": "UPPER", "a path": "../../secrets", "empty": ""} {
		if r := s.status(bad, 0); r.State != unknownState || r.Status != invalid || r.Message == "" {
			s.t.Errorf("%s: %v", name, r)
		}
	}
	// A movement that is deleted while a client waits for it.
	gone := s.create()
	answer := s.waits(gone, -1)
	s.Must(s.Cluster.Delete(s.ctx(), "NnfDataMovement", s.where(), gone))
	s.answered("deleted meanwhile", <-answer, nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
}

// A caller sees its own creation or cancellation immediately, even if the watch is late:
// here the watch delivers nothing.
func ownWrites(s *env) {
	s.usual()
	s.Proxy.Set(lab.Rule{Class: lab.ClassWatch, Delay: patience})
	ran := s.create()
	s.takes(ran)
	s.SetMovement(ran, running(nil))
	s.status(ran, 0)
	_, err := s.Proxy.WaitRequest(s.ctx(), func(r *lab.Request) bool { return r.Class == lab.ClassWatch })
	s.Must(err) // the initial list has been read
	s.cancels(ran, cancelOK)
	if r := s.status(ran, 0); r.State != cancelling {
		s.t.Errorf("immediately after Cancel: %v", r)
	}
	made := []string{ran}
	for range 10 {
		uid := s.create()
		made = append(made, uid)
		s.answered("right after Create", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
		s.lists(s.me, made...)
	}
	uid := made[1]
	s.cancels(uid, cancelOK)
	if r := s.status(uid, 0); r.State != completed || r.Status != cancelled {
		s.t.Errorf("immediately after Cancel before the start: %v", r)
	}
	s.deletes(uid, deleteOK)
	s.answered("right after Delete", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: unknownState, Status: notFound})
	s.finalizers(ran)
}

var waitBehaviours = []behaviour{
	{"a wait ends with the movement", "4.4/2 9.9 9.10 v2/Wait", both, waitEnds},
	{"a wait ends at its limit", "4.4/2 9.11", both, waitLimit},
	{"a wait ends with its caller", "9.11", both, waitCaller},
	{"the limit of waits of one user", "9.11", one, waitLimitPerUser},
	{"a completed movement causes no wait", "4.4/2 9.10", both, completedWait},
}

// waits calls Status in the background, and returns when the daemon has received the
// request.
func (s *env) waits(uid string, seconds int64) <-chan *pb.DataMovementStatusResponse {
	s.t.Helper()
	out := make(chan *pb.DataMovementStatusResponse, 1)
	before := s.watches()
	ctx := s.ctx()
	go func() {
		r, err := s.me.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: seconds})
		if err != nil {
			s.t.Error("wait: ", err)
		}
		out <- r
	}()
	wait.Within(s.t, patience, "the daemon watches", func() bool { return before > 0 || s.watches() > before })
	return out
}

// watches returns the number of watches that the daemon has started.
func (s *env) watches() int { return s.Proxy.Count("watch") }

func waitEnds(s *env) {
	s.usual()
	for _, end := range []struct {
		status fields
		want   pb.DataMovementStatusResponse_Status
		want2  pb2.MovementResult
	}{
		{finished("Success", nil), success, success2},
		{finished("Failed", nil), failed, failed2},
		{fields{"state": "Finished", "status": "Invalid", "message": "bad"}, invalid, invalid2}, // has no end time
	} {
		uid := s.create()
		s.takes(uid)
		first, for30, second := s.waits(uid, -1), s.waits(uid, 3600), make(chan *pb2.WaitResponse, 1)
		ctx := s.ctx()
		go func() {
			r, err := s.me2.Wait(ctx, &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})
			if err != nil {
				s.t.Error("wait, version 2: ", err)
			}
			second <- r
		}()
		s.SetMovement(uid, running(nil)) // no end
		s.is(uid, isRunning, unknownStatus)
		select {
		case r := <-first:
			s.t.Errorf("the wait ended too early: %v", r)
		default:
		}
		s.SetMovement(uid, end.status)
		for _, answer := range []<-chan *pb.DataMovementStatusResponse{first, for30} {
			if r := <-answer; r.GetState() != completed || r.GetStatus() != end.want {
				s.t.Errorf("%v, want %s", r, end.want)
			}
		}
		if r := <-second; len(r.GetMovements()) != 1 || r.Movements[0].Result != end.want2 {
			s.t.Errorf("version 2: %v, want %s", r, end.want2)
		}
		s.finalizers(uid)
	}
}

func waitLimit(s *env) {
	s.config = "[limits]\nmax_wait = \"2s\"\n"
	s.usual()
	uid := s.create()
	for seconds, least := range map[int64]time.Duration{1: time.Second, -1: 2 * time.Second, 3600: 2 * time.Second, 1<<63 - 1: 2 * time.Second} {
		start := time.Now()
		s.answered("at the limit", s.status(uid, seconds), nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
		if d := time.Since(start); d < least {
			s.t.Errorf("wait %d ended after %s", seconds, d)
		}
	}
	_, err := s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.code("version 2", err, codes.DeadlineExceeded, pb2.ErrorReason_TIMEOUT)
}

func waitCaller(s *env) {
	s.config = "[limits]\nwaiters_per_user = 1\n"
	s.usual()
	uid := s.create()
	for range 3 { // each gets its slot only after the previous wait has ended
		wait.Within(s.t, patience, "the caller's deadline", func() bool {
			ctx, cancel := context.WithTimeout(s.ctx(), 300*time.Millisecond)
			defer cancel()
			_, err := s.me.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1})
			return codeOf(err) == codes.DeadlineExceeded
		})
	}
	ctx, cancel := context.WithCancel(s.ctx())
	gone := make(chan error, 1)
	go func() { gone <- s.waitForSlot(ctx, uid) }()
	wait.Within(s.t, patience, "the place is taken", func() bool { return s.slot(uid) == codes.ResourceExhausted })
	cancel()
	s.code("the caller goes", <-gone, codes.Canceled)
	wait.Within(s.t, patience, "the place is free", func() bool { return s.slot(uid) == codes.OK })
}

// waitForSlot starts a wait without limit as soon as a slot is free.
func (s *env) waitForSlot(ctx context.Context, uid string) error {
	for {
		_, err := s.me.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1})
		if codeOf(err) != codes.ResourceExhausted {
			return err
		}
	}
}

// slot returns the code of a waiting request: OK if a slot is free.
func (s *env) slot(uid string) codes.Code {
	_, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: 1})
	return codeOf(err)
}

func waitLimitPerUser(s *env) {
	s.config = "[limits]\nwaiters_per_user = 2\n"
	s.usual()
	uid := s.create()
	ctx, ended := s.ctx(), make(chan error, 2)
	for range 2 {
		go func() { ended <- s.waitForSlot(ctx, uid) }()
	}
	wait.Within(s.t, patience, "both places are taken", func() bool { return s.slot(uid) == codes.ResourceExhausted })
	_, err := s.me2.Wait(s.ctx(), &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})
	s.code("a third in version 2", err, codes.ResourceExhausted, pb2.ErrorReason_LIMIT_EXCEEDED)
	s.answered("one that does not wait", s.status(uid, 0), nil, &pb.DataMovementStatusResponse{State: pending, Status: unknownStatus})
	if r, err := s.as(root).Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: 1}); err != nil || r.State != pending {
		s.t.Errorf("another user: %v, %v", r, err)
	}
	s.SetMovement(uid, finished("Success", nil))
	for range 2 {
		s.code("the end of a wait", <-ended, codes.OK)
	}
}

func completedWait(s *env) {
	s.usual()
	for _, end := range []fields{finished("Success", nil), {"state": "Finished", "status": "Invalid"}} {
		uid := s.create()
		s.SetMovement(uid, end)
		for range 3 { // if each call waited, the test would time out
			if r := s.status(uid, 3600); r.State != completed {
				s.t.Errorf("%v", r)
			}
		}
		ctx, cancel := context.WithTimeout(s.ctx(), patience/2)
		_, err := s.me2.Wait(ctx, &pb2.WaitRequest{Workflow: s.named2(), Uids: []string{uid}})
		cancel()
		s.code("version 2", err, codes.OK)
	}
}
