package dmapiserver

import (
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// answerScenes: a server that answers single requests with trouble.
var answerScenes = map[string]func(*env){
	"throttled for a moment": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 2, Code: 429, RetryAfter: 1})
		began := time.Now()
		s.create() // the daemon waits as long as it is told
		if took := time.Since(began); took < 2*time.Second {
			s.t.Errorf("it took %v, the server had asked for 2 s", took)
		}
		if n := s.Proxy.Count(lab.ClassCreate); n != 3 {
			s.t.Errorf("%d requests, want 3", n)
		}
	},
	"throttled for good": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Code: 429, RetryAfter: 60})
		s.fails(codes.DeadlineExceeded, "")
		s.Proxy.Clear()
	},
	"503 to a read": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Code: 503})
		s.fails(codes.Unavailable, "the API server does not answer")
		s.said("a request could not be served", "answered 503")
		s.Proxy.Clear()
	},
	"500 to a create": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 1, Code: 500})
		if _, err := s.try(""); err == nil {
			s.t.Error("a create that failed was reported as done")
		}
		if n := s.Created(); n != 0 {
			s.t.Errorf("%d movements", n)
		}
	},
	"slow": func(s *env) {
		s.start()
		s.create()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Delay: time.Hour})
		s.fails(codes.DeadlineExceeded, "")
		s.Proxy.Clear()
		if n := s.Created(); n != 1 {
			s.t.Errorf("%d movements: one came to be after its caller had gone", n)
		}
	},
	"the answer is lost": answerLost,
}

// The server has made the object, but nobody has told the caller: who asks again
// with the same key gets that one.
func answerLost(s *env) {
	s.start()
	s.create()
	const key = "rank-17.part_3"
	s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 1, CutAfter: 1})
	first, err := s.try(key)
	if err == nil {
		s.t.Fatalf("the answer was lost, but %s was returned", first)
	}
	second, err := s.try(key)
	if err != nil {
		s.t.Fatal(err)
	}
	again, err := s.try(key)
	if err != nil || again != second {
		s.t.Errorf("%s, then %s: %v", second, again, err)
	}
	if n := s.Created(); n != 2 {
		s.t.Errorf("%d movements, want the one without a key and one", n)
	}
}
