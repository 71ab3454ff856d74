package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
)

// However much of it arrives: without all of it nothing changes, and nothing is
// left.
func TestConnectionBreaksWhileSending(t *testing.T) {
	s := newScene(t)
	s.install(wanted(s.bare("1", "exit 0")))
	before := s.state()
	w := wanted(s.bare("2", "exit 0"))
	size := newArchive(s.plan(w), "0123456789abcdef").size + int64(len("archive 12345\n"))
	for _, n := range []int64{0, 1, 14, 200, 600, 1500, size / 3, size / 2, size - 1200, size - 1, size} {
		s.Fault(fmt.Sprint("cut ", n))
		_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, func() *Plan { s.Fault(""); p := s.plan(w); s.Fault(fmt.Sprint("cut ", n)); return p }(), func(string) {})
		if err == nil {
			t.Fatalf("%d bytes were enough", n)
		}
		s.Fault("")
		s.settle()
		if after := s.state(); after != before {
			t.Fatalf("after %d bytes:\n%s\nbefore:\n%s", n, after, before)
		}
		s.nothingStaged()
	}
	s.install(w)
	if !strings.Contains(s.Get("usr/bin/nnf-dmctl"), "Version 2") {
		t.Error("it is not new in the end")
	}
}

// settle waits until nobody holds the lock of the node any more.
func (s *scene) settle() {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if r, err := Probe(s.t.Context(), s.shell, &Want{Node: s.Name}); err != nil {
			s.t.Fatal(err)
		} else if !r.Busy {
			return
		}
		if time.Now().After(end) {
			s.t.Fatal("the node stays busy")
		}
	}
}

// The connection breaks when everything is there: before "go" the node is old;
// after it the switch goes on, and its result is asked for.
func TestConnectionBreaksAtTheSwitch(t *testing.T) {
	s := newScene(t)
	s.install(wanted(s.bare("1", "exit 0")))
	before := s.state()
	w := wanted(s.bare("2", "sleep 0.5; exit 0"))
	p := s.plan(w)
	s.Fault("break staged")
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err == nil {
		t.Error("no error")
	}
	s.Fault("")
	s.settle()
	if s.state() != before {
		t.Error("without the word it switched")
	}
	s.nothingStaged()

	p = s.plan(w)
	s.Fault("break switching")
	var steps []string
	o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
		steps = append(steps, step)
		if step == "reconnect" {
			s.Fault("")
		}
	})
	if err != nil || o.State != "ok" || !slices.Equal(steps, []string{"upload", "switch", "reconnect"}) {
		t.Fatalf("%v %+v %q", err, o, steps)
	}
	if !s.plan(w).Empty() {
		t.Error("the node is not new")
	}
	s.nothingStaged()
}

// Ctrl-C: until the switch begins the node stays old, then it is waited for.
func TestStop(t *testing.T) {
	s := newScene(t)
	s.install(wanted(s.bare("1", "exit 0")))
	before := s.state()
	w := wanted(s.bare("2", "exit 0"))
	for _, at := range []string{"before", "upload", "switch"} {
		p := s.plan(w)
		stop, halt := context.WithCancel(t.Context())
		defer halt()
		if at == "before" {
			halt()
		}
		o, err := Apply(t.Context(), stop, s.shell, s.Name, p, func(step string) {
			if step == at {
				halt()
			}
		})
		s.settle()
		if at == "switch" {
			if err != nil || o.State != "ok" || !s.plan(w).Empty() {
				t.Errorf("in the switch: %v %+v", err, o)
			}
			continue
		}
		if e := (*remote.Error)(nil); !errors.As(err, &e) || e.Kind != remote.Ended {
			t.Errorf("at %s: %v", at, err)
		}
		if s.state() != before {
			t.Errorf("at %s it changed", at)
		}
		s.nothingStaged()
	}
}

// Who leaves in the middle of the switch leaves a node that becomes new by itself.
func TestLeave(t *testing.T) {
	s := newScene(t)
	s.install(wanted(s.bare("1", "exit 0")))
	w := wanted(s.bare("2", "sleep 0.5; exit 0"))
	p := s.plan(w)
	s.Fault("hold switching")
	ctx, leave := context.WithCancelCause(t.Context())
	timer := time.AfterFunc(time.Hour, func() {})
	_, err := Apply(ctx, t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "switch" {
			timer.Stop()
			timer = time.AfterFunc(300*time.Millisecond, func() { leave(errors.New("enough")) })
		}
	})
	if err == nil || err.Error() != "left in the middle of the switch: enough" {
		t.Errorf("%v", err)
	}
	s.Fault("")
	s.settle()
	if !s.plan(w).Empty() {
		t.Errorf("the node is not new: %s", changes(s.plan(w)))
	}
	s.nothingStaged()
}

// The node dies in the switch, as by a power cut: the next run finishes, with the
// restart that is still missing although all files are new.
func TestSwitchIsKilled(t *testing.T) {
	s := newScene(t)
	s.install(wanted(s.bare("1", "exit 0")))
	kill := `if [ ! -e "$R/run/fake/killed" ]; then : >"$R/run/fake/killed"; p=$PPID; for i in 1 2; do p=$(awk '{ print $4 }' /proc/$p/stat); done; kill -9 $p; sleep 1; exit 1; fi`
	w := wanted(s.bare("2", kill))
	if _, err := s.apply(w); err == nil || !strings.Contains(err.Error(), "without a result") {
		t.Fatalf("%v", err)
	}
	s.settle()
	s.Log()
	r, err := Probe(t.Context(), s.shell, w)
	if err != nil || !r.Interrupted || !slices.Equal(r.Pending, []string{"clientmountd", "nnf-dm"}) {
		t.Fatalf("%v %+v", err, r)
	}
	p := s.plan(w)
	if !strings.Contains(changes(p), "start clientmountd.service") || !strings.Contains(changes(p), "restart nnf-dm.service") || len(p.Notes) == 0 {
		t.Errorf("%s %q", changes(p), p.Notes)
	}
	s.install(w)
	if got := s.restarted(); !slices.Contains(got, "clientmountd.service") || !slices.Contains(got, "nnf-dm.service") {
		t.Errorf("%q", got)
	}
	s.nothingStaged()
	if !s.plan(w).Empty() {
		t.Error("it is not finished")
	}
}

// Two at once: the second leaves the node to the first.
func TestTwoAtOnce(t *testing.T) {
	s := newScene(t)
	w := wanted(s.bare("1", "exit 0"))
	p := s.plan(w)
	first := make(chan error)
	begun := make(chan struct{})
	go func() {
		slow := wanted(s.bare("2", "sleep 1; exit 0"))
		_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
			if step == "switch" {
				close(begun)
			}
		})
		_ = slow
		first <- err
	}()
	<-begun
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err == nil || !strings.Contains(err.Error(), "another nnf-deploy is at work") {
		t.Errorf("the second: %v", err)
	}
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}
