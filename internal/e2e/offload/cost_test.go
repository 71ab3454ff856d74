package offload

import (
	"context"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

var costBehaviours = []behaviour{
	{"a create costs at most two requests", "9.21", both, createCost},
	{"one user creates 40 per second", "9.21", one, createRate},
	{"a poll costs none", "9.21", both, pollCost},
	{"a watch by label, only while a client follows", "9.12", both, watchByLabel},
	{"the rate flags apply with a kubeconfig", "9.28", one, rateFlags},
}

// requests returns the requests since the last ClearRequests, in short form.
func (s *env) requests() (out []string) {
	for _, r := range s.Proxy.Requests() {
		parts := strings.Split(strings.Trim(r.Path, "/"), "/")
		i := 3 // apis/group/version
		if len(parts) > i && parts[i] == "namespaces" {
			i += 2
		}
		out = append(out, r.Class+" "+strings.Join(parts[min(i, len(parts)):], "/"))
	}
	return out
}

func createCost(s *env) {
	s.usual()
	s.create()
	cold := s.requests()
	if len(cold) > 13 {
		s.t.Errorf("the first creation: %q", cold)
	}
	s.Proxy.ClearRequests()
	const more = 20
	for range more {
		s.create()
	}
	if got := s.requests(); len(got) > 2*more {
		s.t.Errorf("%d requests for %d creations: %q", len(got), more, got)
	}
	wait.Within(s.t, patience, "the last ones are confirmed", func() bool { return s.quiet(2 * time.Second) })
	s.create()
	want := []string{"get workflows/" + s.job, "get clientmounts/" + s.job + "-computes", "get clientmounts/" + s.job + "-servers", "create nnfdatamovements"}
	if got := s.requests(); !slices.Equal(got, want) {
		s.t.Errorf("a later creation: %q, want %q", got, want)
	}
}

// quiet reports whether no request is sent for d.
func (s *env) quiet(d time.Duration) bool {
	s.Proxy.ClearRequests()
	ctx, cancel := context.WithTimeout(s.ctx(), d)
	defer cancel()
	_, err := s.Proxy.WaitRequest(ctx, func(*lab.Request) bool { return true })
	return err != nil
}

// createRate creates one movement after another, like a program that copies file by file.
// The machine may be busy with other tests: the required rate is below the usual one, and
// three times the rate with four requests per creation, two of which are lists that wait
// for the API server's cache.
func createRate(s *env) {
	s.usual()
	s.create()
	const n, least = 100, 30
	for range n { // uses up the burst of requests to the API server
		s.create()
	}
	var rate float64
	wait.Within(s.t, patience, "30 a second", func() bool {
		s.Proxy.ClearRequests()
		start := time.Now()
		for range n {
			s.create()
		}
		rate = n / time.Since(start).Seconds()
		s.t.Logf("%.1f creations per second, %.2f requests per creation", rate, float64(s.Proxy.Count())/n)
		return rate >= least
	})
}

func pollCost(s *env) {
	s.usual()
	uid := s.create()
	s.is(uid, pending, unknownStatus)
	wait.Within(s.t, patience, "there is a watch", func() bool { return s.watches() == 1 })
	s.SetMovement(uid, running(nil))
	s.is(uid, isRunning, unknownStatus) // the watch has caught up
	s.Proxy.ClearRequests()
	for range 200 {
		s.status(uid, 0)
	}
	s.SetMovement(uid, running(fields{"restarts": 1}))
	for range 20 {
		s.status2(uid)
	}
	if got := s.requests(); len(got) != 0 {
		s.t.Errorf("requests caused by polls: %q", got)
	}
}

func watchByLabel(s *env) {
	s.usual()
	uid := s.create()
	if n := s.watches(); n != 0 {
		s.t.Errorf("%d watches before a client follows", n)
	}
	s.is(uid, pending, unknownStatus)
	isWatch := func(r *lab.Request) bool { return r.Class == lab.ClassWatch }
	w, err := s.Proxy.WaitRequest(s.ctx(), isWatch)
	s.Must(err)
	query, err := url.ParseQuery(w.Query)
	s.Must(err)
	s.same("selector", query.Get("labelSelector"), "dm.cray.hpe.com/initiator="+s.Node)
	if !strings.Contains(w.Path, "/namespaces/"+s.where()+"/nnfdatamovements") {
		s.t.Errorf("the daemon watches %s", w.Path)
	}
	for _, r := range s.Proxy.Requests() {
		if r.Class == lab.ClassList && strings.HasSuffix(r.Path, "nnfdatamovements") && !strings.Contains(r.Query, "initiator") {
			s.t.Errorf("a list without a selector: %s?%s", r.Path, r.Query)
		}
	}
	wait.Within(s.t, patience, "the watch ends when no client follows", w.Over)
	s.is(uid, pending, unknownStatus)
	wait.Within(s.t, patience, "and starts again", func() bool { return s.watches() == 2 })
	if w.Proto != "HTTP/2.0" || !strings.HasPrefix(w.UserAgent, "nnf-dm/") || !strings.HasSuffix(w.UserAgent, "("+s.Node+")") {
		s.t.Errorf("%s %s", w.Proto, w.UserAgent)
	}
}

// With 4 requests per second and no burst, the requests of the first create take some time;
// the default limits of the library would not delay them.
func rateFlags(s *env) {
	s.system()
	s.workflow(nil)
	s.mounts()
	spec := s.spec("--kubernetes-qps=4", "--kubernetes-burst=1")
	token, err := os.ReadFile(filepath.Join(s.Cluster.Dir, "nnf-dm", "service.token"))
	s.Must(err)
	spec.API = lab.API{Kubeconfig: s.Write("kubeconfig", fixture.Kubeconfig("https://"+s.Proxy.Address, s.Proxy.CA(), token))}
	s.startWith(spec)
	start := time.Now()
	s.create()
	n := len(s.requests())
	if least := time.Duration(n-2) * time.Second / 4; time.Since(start) < least || n < 6 {
		s.t.Errorf("%d requests took %s, want at least %s", n, time.Since(start), least)
	}
}
