package target

import (
	"slices"
	"strings"
	"testing"
)

// uninstall plans the way back and carries it out.
func (s *scene) uninstall(w *Want) (*Outcome, error) {
	s.t.Helper()
	p, err := s.remove(w, false)
	if err != nil {
		s.t.Fatal(err)
	}
	return Apply(s.t.Context(), s.t.Context(), s.shell, s.Name, p, func(string) {})
}

// An uninstall whose end no one has heard leaves nothing that a later run would
// act on: above all the next install keeps the packages that it goes back to.
func TestForgetIsOfItsRun(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	p, err := s.remove(w, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Fault("break switching")
	_, err = Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "reconnect" {
			s.Fault("hostkey") // no one comes back
		}
	})
	if err == nil {
		t.Fatal("it was heard")
	}
	s.Fault("")
	s.settle()
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") != "" || s.Get("usr/bin/clientmountd") != "" {
		t.Error("it was not removed")
	}
	if p, err := s.remove(w, false); err != nil || changes(p) != "remove /var/lib/nnf-deploy\n" {
		t.Errorf("another uninstall: %v %s", err, changes(p))
	}
	s.install(w)
	before := s.state()
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") == "" {
		t.Error("the package to go back to is gone")
	}
	o, err := s.apply(wanted(s.packages("2", "exit 1", "")))
	if err == nil || o.State != "old" || s.state() != before {
		t.Errorf("the node is not as before: %v %+v", err, o)
	}
}

// An uninstall whose connection breaks and comes back leaves as little as one that
// was heard to its end.
func TestForgetAfterReconnect(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	p, err := s.remove(w, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Fault("break switching")
	o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "reconnect" {
			s.Fault("")
		}
	})
	if err != nil || o.State != "ok" {
		t.Fatalf("%v %+v", err, o)
	}
	s.settle()
	if left := s.Files("var/lib/nnf-deploy"); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// One daemon goes: what belongs to the other one stays.
func TestForgetOneDaemon(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	only := *w
	only.Daemons = w.Daemons[:1]
	if o, err := s.uninstall(&only); err != nil {
		t.Fatalf("%v %+v", err, o)
	}
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") != "" || s.Get("var/lib/nnf-deploy/packages/nnf-dm.rpm") == "" {
		t.Errorf("%v", s.Files("var/lib/nnf-deploy"))
	}
	only.Daemons = w.Daemons[1:]
	if o, err := s.uninstall(&only); err != nil {
		t.Fatalf("%v %+v", err, o)
	}
	if left := s.Files("var/lib/nnf-deploy"); len(left) > 0 {
		t.Errorf("%v", left)
	}
}

// A restart that an interrupted run still owes is not lost by a run for the other
// daemon, and is not owed for one that was removed.
func TestPendingIsOfItsDaemon(t *testing.T) {
	s := newScene(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	s.Put("var/lib/nnf-deploy/pending", "clientmountd\nnnf-dm\n", 0o600)
	only := *w
	only.Daemons = w.Daemons[1:]
	s.Log()
	s.install(&only)
	if got := s.restarted(); !slices.Equal(got, []string{"nnf-dm.service"}) || s.Get("var/lib/nnf-deploy/pending") != "clientmountd\n" {
		t.Errorf("restarted %q, pending %q", got, s.Get("var/lib/nnf-deploy/pending"))
	}
	if p := s.plan(w); !strings.Contains(changes(p), "start clientmountd.service") {
		t.Errorf("%s", changes(p))
	}
	only.Daemons = w.Daemons[:1]
	if o, err := s.uninstall(&only); err != nil {
		t.Fatalf("%v %+v", err, o)
	}
	if got := s.Get("var/lib/nnf-deploy/pending"); got != "" {
		t.Errorf("pending %q", got)
	}
}
