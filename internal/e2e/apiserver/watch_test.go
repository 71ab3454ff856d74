package apiserver

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// watchTests: a server that responds to a watch with errors. In each test the running watch
// is interrupted, the rule applies to the next ones, and a ClientMount that was created in
// between is mounted in the end.
var watchTests = map[string]func(*env){
	"watch reset": watchFault(lab.Rule{}, 0, "", "back"),
	"watch 429 with Retry-After": watchFault(
		lab.Rule{Times: 3, Code: 429, RetryAfter: 2}, 0, "", "answered 429", "back"),
	"watch 503": watchFault(lab.Rule{Times: 2, Code: 503}, 0, "", "answered 503", "back"),
	"watch 500": watchFault(lab.Rule{Times: 2, Code: 500}, 0, "", "answered 500", "back"),
	"watch 502 of a load balancer": watchFault(
		lab.Rule{Times: 2, Code: 502, Raw: "<html>bad gateway</html>"}, 0, "", "answered 502", "back"),
	"watch slow":                watchFault(lab.Rule{Times: 1, Delay: 10 * time.Second}, 0, "", "back"),
	"watch 410 Gone":            watchFault(lab.Rule{Times: 1, Code: 410}, 0, "", "back"),
	"watch ERROR event 410":     watchFault(lab.Rule{Times: 1, Code: 410, ErrorEvent: true}, 0, "", "back"),
	"watch ERROR event 500":     watchFault(lab.Rule{Times: 1, Code: 500, ErrorEvent: true}, 0, "", "injected response 500", "back"),
	"watch garbage":             watchFault(lab.Rule{Times: 1, Code: 200, Raw: "<html>hello</html>\n"}, 0, "", "back"),
	"watch cut mid-frame":       watchFault(lab.Rule{Times: 1, CutAfter: 40}, 0, "", "back"),
	"watch cut with the link":   watchFault(lab.Rule{Times: 1, CutAfter: 40, Reset: true}, 0, "", "back"),
	"list failures at start":    listFailures,
	"lookup 429 at start":       throttledLookup,
	"list 429 at start":         func(s *env) { throttledStart(s, lab.ClassList) },
	"storage is initializing":   storageInitializing,
	"deletion while it relists": deletionBeforeRelist,
}

// watchFault returns a test: want describes the log, and lists is the number of lists that
// are needed to continue.
func watchFault(rule lab.Rule, lists int, want ...string) func(*env) {
	return func(s *env) {
		s.start()
		stays := s.mounted()
		first, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
		s.Must(err)
		s.Proxy.ClearRequests()
		if rule.Times > 0 {
			rule.Class = lab.ClassWatch
			s.Proxy.Set(rule)
		}
		s.Proxy.Reset()
		s.lost(1)
		comes := s.ask()
		s.Await(comes, "mounted")
		s.isMounted(comes, true)
		s.isMounted(stays, true)
		back := 0
		for _, line := range want {
			if line == "back" {
				back++
			}
		}
		s.back(back)
		s.resumed(first, lists)
		s.logged(want...)
		s.onceMounted(stays)
		s.onceMounted(comes)
	}
}

// A first list that fails in several ways is not treated as an empty one.
func listFailures(s *env) {
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 500})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 200, Raw: "<html>hello</html>"})
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, CutAfter: 20})
	name := s.ask()
	s.launch()
	s.awaitLog(soon, lostText, "answered 500")
	s.ready(resume)
	s.Await(name, "mounted")
	if n := s.Proxy.Count(lab.ClassList); n != 4 {
		s.t.Errorf("%d lists, want 3 that failed and 1", n)
	}
}

// The daemon honours Retry-After for every request.
func throttledStart(s *env, class string) {
	const after = 2 // seconds
	s.Proxy.Set(lab.Rule{Class: class, Times: 2, Code: 429, RetryAfter: after})
	s.start()
	last := time.Time{}
	for _, r := range s.Proxy.Requests() {
		if r.Class != class {
			continue
		}
		if gap := r.Time.Sub(last); gap < after*time.Second-50*time.Millisecond {
			s.t.Errorf("retried after %v, Retry-After is %d s", gap, after)
		}
		last = r.Time
	}
	if n := s.Proxy.Count(class); n != 3 {
		s.t.Errorf("%d requests of class %s, want 3", n, class)
	}
}

// The server does not serve the first version that the daemon requests.
func throttledLookup(s *env) {
	s.Proxy.Set(lab.Rule{Class: lab.ClassList, Times: 1, Code: 404, Raw: "404 page not found\n"})
	throttledStart(s, lab.ClassDiscovery)
}

// A server responds like this for a while after a change of its CRDs.
func storageInitializing(s *env) {
	const text = `{"kind":"Status","apiVersion":"v1","status":"Failure","message":"storage is (re)initializing",` +
		`"reason":"TooManyRequests","details":{"retryAfterSeconds":1},"code":429}`
	s.start()
	stays := s.mounted()
	first, err := s.Proxy.WaitRequest(s.Context(soon), isWatch)
	s.Must(err)
	s.Proxy.ClearRequests()
	for _, class := range []string{lab.ClassWatch, lab.ClassGet, lab.ClassPatchObject, lab.ClassPatchStatus} {
		s.Proxy.Set(lab.Rule{Class: class, Times: 2, Code: 429, RetryAfter: 1, Raw: text})
	}
	s.Proxy.Reset()
	comes := s.ask()
	s.Await(comes, "mounted")
	s.back(1)
	s.resumed(first, 0)
	s.isMounted(stays, true)
	s.onceMounted(comes)
}

// There is no event for an object that is deleted while the history is lost: only the
// objects at the start of the next watch show that it is being deleted.
func deletionBeforeRelist(s *env) {
	s.start()
	stays, goes := s.mounted(), s.mounted()
	s.Proxy.Refuse()
	s.lost(1)
	s.Remove(goes)
	s.Proxy.Set(lab.Rule{Class: lab.ClassWatch, Times: 1, Code: 410})
	s.Proxy.ClearRequests()
	s.Must(s.Proxy.Accept())
	s.Must(s.Cluster.WaitGone(s.Context(resume), "ClientMount", s.Node, goes))
	s.isMounted(goes, false)
	s.isMounted(stays, true)
	if n := s.Proxy.Count(lab.ClassList); n != 0 {
		s.t.Errorf("%d lists after 410 Gone, want none", n)
	}
}

// budgetTests check the documented numbers of requests.
var budgetTests = map[string]func(*env){
	"budget of requests": budget,
}

func budget(s *env) {
	s.start()
	count := func(what string, most int, classes ...string) {
		s.t.Helper()
		n := s.Proxy.Count(classes...)
		s.t.Logf("%s: %d (at most %d)", what, n, most)
		if n > most {
			s.t.Errorf("%s: %d, want at most %d", what, n, most)
		}
	}
	if _, err := s.Proxy.WaitRequest(s.Context(soon), isWatch); err != nil {
		s.t.Fatal(err)
	}
	count("requests at start", 2)
	count("watches at start", 1, lab.ClassWatch)
	for _, r := range s.Proxy.Requests() {
		if !strings.Contains(r.Path, "/namespaces/"+s.Node+"/clientmounts") {
			s.t.Errorf("requested %s", r.Path)
		}
		if !strings.HasPrefix(r.UserAgent, "clientmountd/") || !strings.Contains(r.UserAgent, s.Node) {
			s.t.Errorf("the user agent is %q", r.UserAgent)
		}
	}

	s.Proxy.ClearRequests()
	name := s.mounted()
	s.settled(name)
	count("writes for a mount", 2, lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate)
	s.Unmount(name)
	s.settled(name)
	s.Delete(name)
	count("writes in the life of a ClientMount", 4, lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate, lab.ClassCreate, lab.ClassDelete)
	count("whole-object updates", 0, lab.ClassUpdate)
	count("lists", 0, lab.ClassList)
	count("watches", 0, lab.ClassWatch)

	s.mounts = nil
	stays := s.mounted()
	s.settled(stays)
	s.Proxy.ClearRequests()
	connections := s.Proxy.Connections()
	s.hold(20 * time.Second)
	count("requests in 20 s of idleness", 0)
	if connections != 1 {
		s.t.Errorf("%d connections to the server, want 1", connections)
	}

	s.Proxy.Reset()
	s.back(1)
	count("lists to continue after a cut", 0, lab.ClassList)
	count("requests to continue after a cut", 1)
}
