package dmapiserver

import (
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// outageScenes: a server that cannot be reached.
var outageScenes = map[string]func(*env){
	"down at start, refused": func(s *env) {
		downAtStart(s, s.Proxy.Refuse, codes.Unavailable, "connection refused")
	},
	"down at start, closed at once": func(s *env) {
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

// The daemon is up first. Callers are told at once, or by their deadline, and
// served as soon as the server is there.
func downAtStart(s *env, breakIt func(), code codes.Code, why string) {
	breakIt()
	s.start()
	words := "the API server does not answer"
	if code == codes.DeadlineExceeded {
		words = "" // gRPC's own, or ours
	}
	s.fails(code, words)
	if why != "" {
		s.said("a request could not be served", why)
	}
	r, err := s.v1.Version(s.t.Context(), nil)
	if err != nil || r.Version == "" {
		s.t.Errorf("what needs no server: %v %v", r, err)
	}
	s.heal()
	s.works()
}

// While the server is away, what is known is still told; a wait outlives it and
// learns of the end that came meanwhile.
func downForAWhile(s *env) {
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	s.Proxy.Refuse()
	s.said("lost sight of the data movements")
	s.Ends(uid, "Success")
	s.fails(codes.Unavailable, "the API server does not answer")
	for range 20 {
		st, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid})
		if err != nil || st.State != pb.DataMovementStatusResponse_RUNNING {
			s.t.Errorf("what was known: %v %v", st, err)
		}
	}
	wait.Pass(s.t, 8*time.Second, "the outage")
	s.goesOn(done)
	s.heal()
	s.ends(done)
	s.said("data movements are in sight again")
}

func flapping(s *env) {
	s.start()
	uid := s.create()
	s.Runs(uid)
	done := s.wait(uid)
	for range 5 {
		s.Proxy.Refuse()
		wait.Pass(s.t, time.Second, "the outage")
		if err := s.Proxy.Accept(); err != nil {
			s.t.Fatal(err)
		}
		wait.Pass(s.t, time.Second, "the time between outages")
		s.goesOn(done)
	}
	s.Ends(uid, "Success")
	s.ends(done)
}
