package dmapiserver

import (
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// watchTests: a server that answers, but not as a watch hopes. In each the
// running watch is broken, the next ones meet the rule, and a wait learns of an
// end that came meanwhile.
var watchTests = map[string]func(*env){
	"watch reset":             watchFault(lab.Rule{}, 0),
	"watch 429":               watchFault(lab.Rule{Times: 2, Code: 429, RetryAfter: 1}, 0),
	"watch 503":               watchFault(lab.Rule{Times: 2, Code: 503}, 0),
	"watch 410 Gone":          watchFault(lab.Rule{Times: 1, Code: 410}, 0),
	"watch ERROR event 410":   watchFault(lab.Rule{Times: 1, Code: 410, ErrorEvent: true}, 0),
	"watch garbage":           watchFault(lab.Rule{Times: 1, Code: 200, Raw: "<html>hello</html>\n"}, 0),
	"watch cut mid-frame":     watchFault(lab.Rule{Times: 1, CutAfter: 40}, 0),
	"watch cut with the link": watchFault(lab.Rule{Times: 1, CutAfter: 40, Reset: true}, 0),
	"list trouble":            listTrouble,
	"watch refused for long":  blindWait,
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
		began := time.Now()
		s.Ends(uid, "Success")
		s.ends(done)
		// A wait reads its own movement when the watch does not come back for 5 s.
		quick := time.Since(began) < 4*time.Second
		movements := 0
		for _, r := range s.Proxy.Requests() {
			switch {
			case r.Class == lab.ClassWatch && !strings.Contains(r.Query, "labelSelector="+strings.ReplaceAll(api.LabelInitiator, "/", "%2F")+"%3D"+s.Node):
				s.t.Errorf("a watch for more than this node's: %s", r.Query)
			case r.Class == lab.ClassList:
				movements++
			case r.Class == lab.ClassGet && (quick || !strings.HasSuffix(r.Path, "/"+uid)):
				s.t.Errorf("a wait asks for %s", r.Path)
			}
		}
		if movements != lists {
			s.t.Errorf("%d lists to go on, want %d", movements, lists)
		}
	}
}

// A first list that fails is not taken for an empty one: the wait continues, and
// ends when the list works.
func listTrouble(s *env) {
	uid := s.startRunning()
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 500})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 200, Raw: "<html>hello</html>"})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, CutAfter: 20})
	done := s.wait(uid)
	wait.Pass(s.t, 100*time.Millisecond, "the time for a wait to end that must not")
	s.goesOn(done)
	s.Ends(uid, "Success")
	s.ends(done)
}

// A watch that does not come back for long: the wait learns of the end all the
// same, by asking for its own movement, and so does a poll.
func blindWait(s *env) {
	uid := s.startRunning()
	done := s.wait(uid)
	s.Proxy.ClearRequests()
	s.Proxy.Set(lab.Rule{Class: lab.ClassWatch, Code: 503})
	s.Proxy.Reset()
	s.said("lost sight of the data movements")
	wait.Pass(s.t, 10*time.Second, "the time in which reads are counted")
	if n := s.Proxy.Count(lab.ClassGet); n == 0 || n > 5 {
		s.t.Errorf("%d reads in 10 s", n)
	}
	s.goesOn(done)
	s.Ends(uid, "Success")
	began := time.Now()
	s.ends(done)
	if took := time.Since(began); took > 15*time.Second {
		s.t.Errorf("the wait ended after %v", took)
	}
	s.heal()
}

// answerTests: a server that answers single requests with trouble.
var answerTests = map[string]func(*env){
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

// The server has made the object, but the caller has no answer: a caller that asks again
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
	s.Must(err)
	again, err := s.try(key)
	if err != nil || again != second {
		s.t.Errorf("%s, then %s: %v", second, again, err)
	}
	if n := s.Created(); n != 2 {
		s.t.Errorf("%d movements, want the one without a key and one", n)
	}
}
