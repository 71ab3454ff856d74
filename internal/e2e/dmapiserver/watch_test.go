package dmapiserver

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// watchTests: a server with faulty watches. Each test breaks the running watch, applies the
// rule to the next ones, and checks that a wait notices the end of its movement.
var watchTests = map[string]func(*env){
	"watch reset":                   watchFault(lab.Rule{}, 0),
	"watch 429":                     watchFault(lab.Rule{Times: 2, Code: 429, RetryAfter: 1}, 0),
	"watch 503":                     watchFault(lab.Rule{Times: 2, Code: 503}, 0),
	"watch 410 Gone":                watchFault(lab.Rule{Times: 1, Code: 410}, 0),
	"watch ERROR event 410":         watchFault(lab.Rule{Times: 1, Code: 410, ErrorEvent: true}, 0),
	"watch garbage":                 watchFault(lab.Rule{Times: 1, Code: 200, Raw: "<html>hello</html>\n"}, 0),
	"watch cut mid-frame":           watchFault(lab.Rule{Times: 1, CutAfter: 40}, 0),
	"watch cut with the link":       watchFault(lab.Rule{Times: 1, CutAfter: 40, Reset: true}, 0),
	"list errors":                   listErrors,
	"watch refused for a long time": staleWatchWait,
}

func watchFault(rule lab.Rule, lists int) func(*env) {
	return func(s *env) {
		uid := s.startRunning()
		done := s.wait(uid)
		s.Proxy.ClearRequests()
		if rule.Times > 0 {
			rule.Class = lab.ClassWatch
			s.Proxy.Set(rule)
		}
		s.Proxy.Reset()
		start := time.Now()
		s.Ends(uid, "Success")
		s.ends(done)
		// A wait reads its movement if the watch does not recover within 5 s.
		quick := time.Since(start) < 4*time.Second
		movements := 0
		for _, r := range s.Proxy.Requests() {
			switch {
			case r.Class == lab.ClassWatch && !strings.Contains(r.Query, "labelSelector="+strings.ReplaceAll(api.LabelInitiator, "/", "%2F")+"%3D"+s.Node):
				s.t.Errorf("a watch that includes other nodes: %s", r.Query)
			case r.Class == lab.ClassList:
				movements++
			case strings.Contains(r.Path, "/workflows/") || strings.Contains(r.Path, "/clientmounts/"):
				// Confirms the creation, if it was slow.
			case r.Class == lab.ClassGet && (quick || !strings.HasSuffix(r.Path, "/"+uid)):
				s.t.Errorf("a wait reads %s", r.Path)
			}
		}
		if movements != lists {
			s.t.Errorf("%d lists to resume, want %d", movements, lists)
		}
	}
}

// A failed first list is not treated as an empty one: the wait continues, and ends when a
// list succeeds.
func listErrors(s *env) {
	uid := s.startRunning()
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 500})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 200, Raw: "<html>hello</html>"})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, CutAfter: 20})
	done := s.wait(uid)
	wait.Pass(s.t, 100*time.Millisecond, "the time in which the wait must not end")
	s.continues(done)
	s.Ends(uid, "Success")
	s.ends(done)
}

// If the watch does not recover for a long time, the wait reads its movement and notices
// the end.
func staleWatchWait(s *env) {
	uid := s.startRunning()
	done := s.wait(uid)
	s.Proxy.ClearRequests()
	s.Proxy.Set(lab.Rule{Class: lab.ClassWatch, Code: 503})
	s.Proxy.Reset()
	s.awaitLog("the watch on the data movements failed")
	wait.Pass(s.t, 10*time.Second, "the time in which reads are counted")
	if n := s.Proxy.Count(lab.ClassGet); n == 0 || n > 5 {
		s.t.Errorf("%d reads in 10 s", n)
	}
	s.continues(done)
	s.Ends(uid, "Success")
	start := time.Now()
	s.ends(done)
	if took := time.Since(start); took > 45*time.Second {
		s.t.Errorf("the wait ended after %v", took)
	}
	s.heal()
}

// responseTests: a server that fails single requests.
var responseTests = map[string]func(*env){
	"throttled for a short time": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 2, Code: 429, RetryAfter: 1})
		start := time.Now()
		s.create() // the daemon waits for the time in Retry-After
		if took := time.Since(start); took < 2*time.Second {
			s.t.Errorf("it took %v, want at least the 2 s of Retry-After", took)
		}
		if n := s.Proxy.Count(lab.ClassCreate); n != 3 {
			s.t.Errorf("%d requests, want 3", n)
		}
	},
	"throttled permanently": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Code: 429, RetryAfter: 60})
		s.fails(codes.DeadlineExceeded, "")
		s.Proxy.Clear()
	},
	"503 to a read": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassGet, Code: 503})
		s.fails(codes.Unavailable, "a request to the API server failed")
		s.awaitLog("a request could not be served", "answered 503")
		s.Proxy.Clear()
	},
	"500 to a create": func(s *env) {
		s.start()
		s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 1, Code: 500})
		if _, err := s.try(""); err == nil {
			s.t.Error("a failed create was reported as successful")
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
			s.t.Errorf("%d movements: one was created after its caller had timed out", n)
		}
	},
	"the response is lost": responseLost,
}

// The server has created the object, but the caller gets no response: a repeated request
// with the same key returns that object.
func responseLost(s *env) {
	s.start()
	s.create()
	const key = "rank-17.part_3"
	s.Proxy.Set(lab.Rule{Class: lab.ClassCreate, Times: 1, CutAfter: 1})
	first, err := s.try(key)
	if err == nil {
		s.t.Fatalf("the response was lost, but %s was returned", first)
	}
	second, err := s.try(key)
	s.Must(err)
	again, err := s.try(key)
	if err != nil || again != second {
		s.t.Errorf("%s, then %s: %v", second, again, err)
	}
	if n := s.Created(); n != 2 {
		s.t.Errorf("%d movements, want one without and one with the key", n)
	}
}
