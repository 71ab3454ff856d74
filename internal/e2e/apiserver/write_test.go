package apiserver

import (
	"net/http"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// writeTests: requests for one object that are rejected. The node does its work once, and
// the server has the correct status in the end.
var writeTests = map[string]func(*env){
	"status 409":                        refusedWrites(lab.Rule{Class: lab.ClassPatchStatus, Times: 3, Code: 409}),
	"status 429 with Retry-After":       refusedWrites(lab.Rule{Class: lab.ClassPatchStatus, Times: 2, Code: 429, RetryAfter: 1}),
	"status 503":                        refusedWrites(lab.Rule{Class: lab.ClassPatchStatus, Times: 3, Code: 503}),
	"status without a response in time": refusedWrites(lab.Rule{Class: lab.ClassPatchStatus, Times: 1, Delay: time.Hour}),
	"status written, response lost":     refusedWrites(lab.Rule{Class: lab.ClassPatchStatus, Times: 1, CutAfter: 10, Reset: true}),
	"finalizer 503":                     refusedWrites(lab.Rule{Class: lab.ClassPatchObject, Times: 2, Code: 503}),
	"finalizer set, response lost":      finalizerAnswerLost,
	"profile 503":                       profileUnread(lab.Rule{Times: 2, Code: 503}),
	"profile cut":                       profileUnread(lab.Rule{Times: 1, CutAfter: 10}),
}

// refusedWrites returns a test in which a rule applies to the mount, the unmount and the
// deletion of one ClientMount.
func refusedWrites(rule lab.Rule) func(*env) {
	return func(s *env) {
		s.start(s.Settings("[kubernetes]", `request_timeout = "3s"`))
		stays := s.mounted()
		// again checks the number of requests of the rule's class since the last call: each
		// is retried once for each rejection.
		again := func(what string) {
			s.t.Helper()
			if n := s.Proxy.Count(rule.Class); n != rule.Times+1 {
				s.t.Errorf("%s: %d requests of class %s, want %d rejected and 1", what, n, rule.Class, rule.Times)
			}
			s.Proxy.Clear()
			s.Proxy.ClearRequests()
			s.Proxy.Set(rule)
		}
		s.Proxy.ClearRequests()
		s.Proxy.Set(rule)
		name := s.ask()
		o := s.Await(name, "mounted")
		s.settled(name)
		again("mount")
		if o.Severity() != "" {
			s.t.Errorf("mounted, but the status has an error: %s", o.DebugMessage())
		}
		s.onceMounted(name)

		s.Unmount(name)
		s.settled(name)
		if rule.Class != lab.ClassPatchObject { // an unmount does not need it
			again("unmount")
		}
		s.isMounted(name, false)
		if n := s.calls("umount", name); n != 1 {
			s.t.Errorf("%d umount commands", n)
		}
		s.Delete(name)
		if rule.Class == lab.ClassPatchObject {
			again("deletion")
		}
		s.Proxy.Clear()
		if n := s.calls("umount", name); n != 1 {
			s.t.Errorf("%d umount commands after the deletion", n)
		}
		s.isMounted(stays, true)
		s.onceMounted(stays)
	}
}

// The server carries out the request, but its response is lost together with the connection
// of the watch. If the watch does not report the change in time, the daemon retries. The
// server rejects the retry, because the list has changed, so the finalizer is set once and
// removed once.
func finalizerAnswerLost(s *env) {
	s.start()
	accepted := func() (n int) {
		for _, r := range s.Proxy.Requests() {
			if r.Class == lab.ClassPatchObject && r.Code() != http.StatusUnprocessableEntity {
				n++
			}
		}
		return n
	}
	lose := func() {
		s.Proxy.Clear()
		s.Proxy.ClearRequests()
		s.Proxy.Set(lab.Rule{Class: lab.ClassPatchObject, Times: 1, CutAfter: 10, Reset: true})
	}
	lose()
	name := s.ask()
	s.Await(name, "mounted")
	s.settled(name)
	s.onceMounted(name)
	added, addTries := accepted(), s.Proxy.Count(lab.ClassPatchObject)
	lose()
	s.Delete(name)
	s.isMounted(name, false)
	removed, removeTries := accepted(), s.Proxy.Count(lab.ClassPatchObject)
	if n := s.calls("umount", name); n != 1 || added != 1 || removed != 1 || addTries > 2 || removeTries > 2 {
		s.t.Errorf("%d umount commands, %d and %d patches of the finalizer done, want one each; %d and %d tries, want at most two",
			n, added, removed, addTries, removeTries)
	}
}

// A mount waits for its profile without being reported as failed. The record on the node is
// sufficient to unmount.
func profileUnread(rule lab.Rule) func(*env) {
	rule.Class = lab.ClassGet
	return func(s *env) {
		s.start()
		s.Proxy.Set(rule)
		name := s.ask()
		o := s.AwaitStatus(name, func(o lab.Object) bool { return o.Ready("mounted") || o.Severity() != "" })
		if o.Severity() != "" {
			s.t.Errorf("the status has an error: %s", o.DebugMessage())
		}
		s.onceMounted(name)
		if n := s.Proxy.Count(lab.ClassGet); n != rule.Times+1 {
			s.t.Errorf("the profile was requested %d times, want %d", n, rule.Times+1)
		}
		rule.Times = 0
		s.Proxy.Clear()
		s.Proxy.Set(rule)
		s.Unmount(name)
		s.isMounted(name, false)
	}
}

// settled waits until the daemon has finished its work on an object: the status line shows
// no attempt in progress and no failure.
func (s *env) settled(name string) {
	s.t.Helper()
	wait.Within(s.t, resume, name+" is settled", func() bool {
		line := s.status()
		return line != "" && !strings.Contains(line, "in progress") && !strings.Contains(line, "failing")
	})
}
