package dmapiserver

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// lifeTests: the daemon exits or is killed while clients wait.
var lifeTests = map[string]func(*env){
	"killed during waits":     killed,
	"restarted during waits":  restarted,
	"killed during a create":  killedInCreate,
	"callers that give up":    callersGiveUp,
	"killed during an outage": killedInOutage,
}

const waiters = 20

func (s *env) waits(uid string) []<-chan waitResult {
	s.t.Helper()
	var all []<-chan waitResult
	for range waiters {
		all = append(all, s.wait(uid))
	}
	return all
}

// again repeats Status on the existing connection until the restarted daemon responds.
func (s *env) again(uid string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), resume)
	defer cancel()
	wait.Within(s.t, resume, "a response", func() bool {
		st, err := s.v1.Status(ctx, &pb.DataMovementStatusRequest{Workflow: s.job.Ref(), Uid: uid, MaxWaitTime: -1})
		if status.Code(err) == codes.Unavailable {
			return false
		}
		if err != nil || st.Status != pb.DataMovementStatusResponse_SUCCESS {
			s.t.Errorf("after the restart: %v %v", st, err)
		}
		return true
	})
}

// If the daemon is killed, only the waits are lost: callers get UNAVAILABLE immediately,
// retry, and get the status from the next daemon.
func killed(s *env) {
	uid := s.startRunning()
	all := s.waits(uid)
	s.daemon.Kill9()
	for _, done := range all {
		if o := s.end(done); status.Code(o.err) != codes.Unavailable {
			s.t.Errorf("a wait ended with %v %v", o.DataMovementStatusResponse, o.err)
		}
	}
	s.start() // replaces the stale socket
	s.Ends(uid, "Success")
	s.again(uid)
}

// At a shutdown, waits return the current state.
func restarted(s *env) {
	uid := s.startRunning()
	all := s.waits(uid)
	start := time.Now()
	s.Stop(s.daemon)
	if took := time.Since(start); took > 30*time.Second {
		s.t.Errorf("the shutdown took %v", took)
	}
	for _, done := range all {
		o := s.end(done)
		if o.err != nil || o.State != pb.DataMovementStatusResponse_RUNNING {
			s.t.Errorf("a wait ended with %v %v", o.DataMovementStatusResponse, o.err)
		}
	}
	s.start()
	s.Ends(uid, "Success")
	s.again(uid)
}

// The daemon is killed between the creation and the response: a repeated request creates no
// second object.
func killedInCreate(s *env) {
	s.start()
	s.create()
	const key = "once"
	s.Proxy.ClearRequests()
	done := make(chan error, 1)
	// The response does not reach the daemon.
	s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 1, CutAfter: 1})
	go func() {
		_, err := s.try(key)
		done <- err
	}()
	s.seen("to create", func(r *lab.Request) bool { return r.Class == lab.ClassCreate && r.Sent() > 0 })
	s.daemon.Kill9()
	if err := <-done; err == nil {
		s.t.Error("Create succeeded without a response")
	}
	s.heal()
	s.start()
	first, err := s.try(key)
	s.Must(err)
	if second, err := s.try(key); err != nil || second != first {
		s.t.Errorf("%s, then %s: %v", first, second, err)
	}
	if n := s.Created(); n != 2 {
		s.t.Errorf("%d movements, want the first one and one with the key", n)
	}
}

func killedInOutage(s *env) {
	uid := s.startRunning()
	done := s.wait(uid)
	s.Proxy.Refuse()
	s.awaitLog("the watch on the data movements failed")
	s.daemon.Kill9()
	if o := s.end(done); status.Code(o.err) != codes.Unavailable {
		s.t.Errorf("the wait ended with %v %v", o.DataMovementStatusResponse, o.err)
	}
	s.start()
	s.fails(codes.Unavailable, "a request to the API server failed")
	s.Ends(uid, "Success")
	s.heal()
	s.again(uid)
}

// Waits of disconnected clients leave no descriptors, no threads, and after some time no
// watch.
func callersGiveUp(s *env) {
	uid := s.startRunning()
	if _, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid}); err != nil {
		s.t.Fatal(err)
	}
	before, err := s.daemon.Usage()
	s.Must(err)
	var all sync.WaitGroup
	for i := range 500 {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(s.t.Context(), time.Duration(500+i)*time.Millisecond)
			defer cancel()
			_, err := s.v1.Status(ctx, &pb.DataMovementStatusRequest{Uid: uid, MaxWaitTime: -1})
			if status.Code(err) != codes.DeadlineExceeded {
				s.t.Errorf("a wait with a deadline: %v", err)
			}
		})
	}
	all.Wait()
	wait.Pass(s.t, 13*time.Second, "the 10 s that the watch continues without a client")
	s.Proxy.ClearRequests()
	s.Ends(uid, "Success")
	after, err := s.daemon.Usage()
	s.Must(err)
	s.t.Logf("threads %d, then %d; files %d, then %d; anonymous memory %.1f MB, then %.1f", before.Threads, after.Threads, before.Files, after.Files, float64(before.Anonymous)/1e6, float64(after.Anonymous)/1e6)
	if after.Files > before.Files || after.Threads > before.Threads+6 {
		s.t.Errorf("%+v before, %+v after", before, after)
	}
	if n := s.Proxy.Count(); n != 0 {
		s.t.Errorf("%d requests without a following client", n)
	}
}

// outageTests: a server that cannot be reached.
var outageTests = map[string]func(*env){
	"down at start, refused": func(s *env) {
		downAtStart(s, s.Proxy.Refuse, codes.Unavailable, "connection refused")
	},
	"down at start, closed immediately": func(s *env) {
		downAtStart(s, func() { s.Proxy.Down(true) }, codes.Unavailable, "cannot reach API server")
	},
	"down at start, 503": func(s *env) {
		downAtStart(s, func() { s.Proxy.Set(lab.Rule{Code: 503}) }, codes.Unavailable, "answered 503")
	},
	"down at start, half open": func(s *env) {
		downAtStart(s, func() { s.Proxy.HalfOpen(true) }, codes.DeadlineExceeded, "")
	},
	"down for a while": downForAWhile,
	"flapping":         flapping,
}

// The daemon starts before the server. Callers get an error immediately, or at their
// deadline, and are served as soon as the server is up.
func downAtStart(s *env, breakIt func(), code codes.Code, why string) {
	breakIt()
	s.start()
	words := "a request to the API server failed"
	if code == codes.DeadlineExceeded {
		words = "" // the text of gRPC or of the daemon
	}
	s.fails(code, words)
	if why != "" {
		s.awaitLog("a request could not be served", why)
	}
	r, err := s.v1.Version(s.t.Context(), nil)
	if err != nil || r.Version == "" {
		s.t.Errorf("Version, which needs no server: %v %v", r, err)
	}
	s.heal()
	s.works()
}

// While the server is unreachable, Status returns the last known state. A wait survives the
// outage and notices an end during it. The watch continues for a second wait, even if the first
// one ends earlier by a request of its own.
func downForAWhile(s *env) {
	uid := s.startRunning()
	other := s.create()
	s.Runs(other)
	done, waiting := s.wait(uid), s.wait(other)
	s.Proxy.Refuse()
	s.awaitLog("the watch on the data movements failed")
	s.Ends(uid, "Success")
	s.fails(codes.Unavailable, "a request to the API server failed")
	for range 20 {
		st, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid})
		if err != nil || st.State != pb.DataMovementStatusResponse_RUNNING {
			s.t.Errorf("the last known state: %v %v", st, err)
		}
	}
	wait.Pass(s.t, 8*time.Second, "the outage")
	s.continues(done)
	s.heal()
	s.ends(done)
	s.awaitLog("the watch on the data movements works again")
	s.Ends(other, "Success")
	s.ends(waiting)
}

func flapping(s *env) {
	uid := s.startRunning()
	done := s.wait(uid)
	for range 5 {
		s.Proxy.Refuse()
		wait.Pass(s.t, time.Second, "the outage")
		s.Must(s.Proxy.Accept())
		wait.Pass(s.t, time.Second, "the time between outages")
		s.continues(done)
	}
	s.Ends(uid, "Success")
	s.ends(done)
}
