package apiserver

import (
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// budgetScenes hold the numbers that are promised to whoever runs the server.
var budgetScenes = map[string]func(*env){
	"budget of requests": budget,
}

func budget(s *env) {
	s.start()
	count := func(what string, most int, classes ...string) {
		s.t.Helper()
		n := s.Proxy.Count(classes...)
		s.t.Logf("%s: %d (at most %d)", what, n, most)
		if n > most {
			s.t.Errorf("%s: %d, promised are %d", what, n, most)
		}
	}
	if _, err := s.Proxy.WaitRequest(s.Context(soon), isWatch); err != nil {
		s.t.Fatal(err)
	}
	count("requests at start", 3)
	count("watches at start", 1, lab.ClassWatch)
	for _, r := range s.Proxy.Requests() {
		if r.Class != lab.ClassDiscovery && !strings.Contains(r.Path, "/namespaces/"+s.Node+"/clientmounts") {
			s.t.Errorf("asked for %s", r.Path)
		}
		if !strings.HasPrefix(r.UserAgent, "clientmountd/") || !strings.Contains(r.UserAgent, s.Node) {
			s.t.Errorf("the user agent is %q", r.UserAgent)
		}
	}

	s.Proxy.ClearRequests()
	name := s.mounted()
	s.settled(name)
	count("writes for a mount", 2, lab.ClassPatchStatus, lab.ClassPatchObject, lab.ClassUpdate)
	s.Want(name, "unmounted")
	s.Await(name, "unmounted")
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
	count("lists to go on after a cut", 0, lab.ClassList)
	count("requests to go on after a cut", 1)
}
