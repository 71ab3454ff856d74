package offload

import (
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var costPromises = []promise{
	{"a create costs four requests", "9.21", both, createCost},
	{"a poll costs none", "9.21", both, pollCost},
	{"a watch by label, only while somebody follows", "9.12", both, watchByLabel},
	{"the rate flags hold with a kubeconfig", "9.28", one, rateFlags},
}

// asked are the requests since the last ClearRequests, in short.
func (s *scene) asked() (out []string) {
	for _, r := range s.proxy.Requests() {
		parts := strings.Split(strings.Trim(r.Path, "/"), "/")
		i := 3 // apis/group/version
		if len(parts) > i && parts[i] == "namespaces" {
			i += 2
		}
		out = append(out, r.Class+" "+strings.Join(parts[min(i, len(parts)):], "/"))
	}
	return out
}

func createCost(s *scene) {
	s.usual()
	s.create()
	cold := s.asked()
	if len(cold) > 10 {
		s.t.Errorf("the first one: %q", cold)
	}
	s.proxy.ClearRequests()
	s.create()
	want := []string{"get workflows/" + s.job, "list clientmounts", "list clientmounts", "create nnfdatamovements"}
	if got := s.asked(); !slices.Equal(got, want) {
		s.t.Errorf("a later one: %q, want %q", got, want)
	}
}

func pollCost(s *scene) {
	s.usual()
	uid := s.create()
	s.is(uid, pending, unknownStatus)
	s.eventually("there is a watch", func() bool { return s.watches() == 1 })
	s.rabbitSays(uid, running(nil))
	s.is(uid, isRunning, unknownStatus) // the watch has caught up
	s.proxy.ClearRequests()
	for range 200 {
		s.status(uid, 0)
	}
	s.rabbitSays(uid, running(fields{"restarts": 1}))
	for range 20 {
		s.status2(uid)
	}
	if got := s.asked(); len(got) != 0 {
		s.t.Errorf("polls made requests: %q", got)
	}
}

func watchByLabel(s *scene) {
	s.usual()
	uid := s.create()
	if n := s.watches(); n != 0 {
		s.t.Errorf("%d watches before anybody follows", n)
	}
	s.is(uid, pending, unknownStatus)
	isWatch := func(r *lab.Request) bool { return r.Class == lab.ClassWatch }
	w, err := s.proxy.WaitRequest(s.ctx(), isWatch)
	s.must(err)
	query, err := url.ParseQuery(w.Query)
	s.must(err)
	s.same("selector", query.Get("labelSelector"), "dm.cray.hpe.com/initiator="+s.Node)
	if !strings.Contains(w.Path, "/namespaces/"+s.where()+"/nnfdatamovements") {
		s.t.Errorf("it watches %s", w.Path)
	}
	for _, r := range s.proxy.Requests() {
		if r.Class == lab.ClassList && strings.HasSuffix(r.Path, "nnfdatamovements") && !strings.Contains(r.Query, "initiator") {
			s.t.Errorf("a list without a selector: %s?%s", r.Path, r.Query)
		}
	}
	s.eventually("the watch ends when nobody follows", w.Over)
	s.is(uid, pending, unknownStatus)
	s.eventually("and begins again", func() bool { return s.watches() == 2 })
	if w.Proto != "HTTP/2.0" || !strings.HasPrefix(w.UserAgent, "nnf-dm/") || !strings.HasSuffix(w.UserAgent, "("+s.Node+")") {
		s.t.Errorf("%s %s", w.Proto, w.UserAgent)
	}
}

// With 4 requests per second and no burst, what the first create asks takes some
// time; the library's own limits would let it pass at once.
func rateFlags(s *scene) {
	s.system()
	s.workflow(nil)
	s.mounts()
	path := s.kubeconfig()
	var args []string
	for _, f := range s.flags() {
		if !strings.HasPrefix(f, "--kubernetes-service") && !strings.HasPrefix(f, "--service-") {
			args = append(args, f)
		}
	}
	s.launch(lab.DaemonOptions{Binary: binary(s.t), Args: append(args, "--kubeconfig="+path, "--kubernetes-qps=4", "--kubernetes-burst=1")})
	if _, err := s.d.WaitReady(s.ctx()); err != nil {
		s.t.Fatal(err)
	}
	s.me = s.as(alice)
	start := time.Now()
	s.create()
	n := len(s.asked())
	if least := time.Duration(n-2) * time.Second / 4; time.Since(start) < least || n < 6 {
		s.t.Errorf("%d requests took %s, want %s at least", n, time.Since(start), least)
	}
}
