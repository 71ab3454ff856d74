package offload

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var waitPromises = []promise{
	{"a wait ends with the movement", "4.4/2 9.9 9.10 v2/Wait", both, waitEnds},
	{"a wait ends at its limit", "4.4/2 9.11", both, waitLimit},
	{"a wait ends with its caller", "9.11", both, waitCaller},
	{"as many waits as one user may have", "9.11", one, waitPlaces},
	{"a completed one is not waited for", "4.4/2 9.10", both, waitForNothing},
}

// waits asks in the background, and returns when the daemon has the request.
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

// watches counts those that the daemon has begun.
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
			s.t.Errorf("it ended too early: %v", r)
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
	for range 3 { // each finds its place only when the one before waits no more
		wait.Within(s.t, patience, "the caller's deadline", func() bool {
			ctx, cancel := context.WithTimeout(s.ctx(), 300*time.Millisecond)
			defer cancel()
			_, err := s.me.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1})
			return codeOf(err) == codes.DeadlineExceeded
		})
	}
	ctx, cancel := context.WithCancel(s.ctx())
	gone := make(chan error, 1)
	go func() { gone <- s.takesPlace(ctx, uid) }()
	wait.Within(s.t, patience, "the place is taken", func() bool { return s.place(uid) == codes.ResourceExhausted })
	cancel()
	s.code("the caller goes", <-gone, codes.Canceled)
	wait.Within(s.t, patience, "the place is free", func() bool { return s.place(uid) == codes.OK })
}

// takesPlace waits without end, as soon as there is a place.
func (s *env) takesPlace(ctx context.Context, uid string) error {
	for {
		_, err := s.me.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: -1})
		if codeOf(err) != codes.ResourceExhausted {
			return err
		}
	}
}

// place tells whether there is one for a waiting request.
func (s *env) place(uid string) codes.Code {
	_, err := s.me.Status(s.ctx(), &pb.DataMovementStatusRequest{Workflow: s.named(), Uid: uid, MaxWaitTime: 1})
	return codeOf(err)
}

func waitPlaces(s *env) {
	s.config = "[limits]\nwaiters_per_user = 2\n"
	s.usual()
	uid := s.create()
	ctx, ended := s.ctx(), make(chan error, 2)
	for range 2 {
		go func() { ended <- s.takesPlace(ctx, uid) }()
	}
	wait.Within(s.t, patience, "both places are taken", func() bool { return s.place(uid) == codes.ResourceExhausted })
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

func waitForNothing(s *env) {
	s.usual()
	for _, end := range []fields{finished("Success", nil), {"state": "Finished", "status": "Invalid"}} {
		uid := s.create()
		s.SetMovement(uid, end)
		for range 3 { // with a wait each, this would end the test's time
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
