package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// If not all of the archive arrives, nothing changes, and nothing is left.
func TestConnectionBreaksWhileSending(t *testing.T) {
	s := newTestNode(t)
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

// settle waits until no process holds the lock of the node any more.
func (s *testNode) settle() {
	s.t.Helper()
	wait.Until(s.t, "the end of the switch", func() bool {
		r, err := Probe(s.t.Context(), s.shell, &Want{Node: s.Name})
		if err != nil {
			s.t.Fatal(err)
		}
		return !r.Busy
	})
}

// The connection breaks after everything has arrived: before "go" the node stays old; after
// it the switch continues, and its result is fetched.
func TestConnectionBreaksAtTheSwitch(t *testing.T) {
	s := newTestNode(t)
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

// Ctrl-C: before the switch the node stays old; during the switch Apply waits for it.
func TestStop(t *testing.T) {
	s := newTestNode(t)
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

// If nnf-deploy ends during the switch, the node completes the switch on its own.
func TestLeave(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.bare("1", "exit 0")))
	w := wanted(s.bare("2", "sleep 0.5; exit 0"))
	p := s.plan(w)
	s.Fault("hold switching")
	ctx, leave := context.WithCancelCause(t.Context())
	_, err := Apply(ctx, t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "switch" {
			time.AfterFunc(300*time.Millisecond, func() { leave(errors.New("enough")) })
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

// The switch is killed, as by a power cut: the next run finishes it, including the restart
// that is still missing although all files are new.
func TestSwitchIsKilled(t *testing.T) {
	s := newTestNode(t)
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

// Of two runs at once the second fails.
func TestTwoAtOnce(t *testing.T) {
	s := newTestNode(t)
	p := s.plan(wanted(s.bare("1", "sleep 1; exit 0")))
	first := make(chan error)
	begun := make(chan struct{})
	go func() {
		_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
			if step == "switch" {
				close(begun)
			}
		})
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

// uninstall must succeed.
func (s *testNode) uninstall(w *Want) {
	s.t.Helper()
	p, err := s.remove(w, false)
	if err != nil {
		s.t.Fatal(err)
	}
	if o, err := Apply(s.t.Context(), s.t.Context(), s.shell, s.Name, p, func(string) {}); err != nil {
		s.t.Fatalf("%v %+v", err, o)
	}
}

// nothingKept: nnf-deploy keeps nothing on the node any more.
func (s *testNode) nothingKept() {
	s.t.Helper()
	if left := s.Files(product.StateDirectory); len(left) > 0 {
		s.t.Errorf("%v", left)
	}
}

// An uninstall whose answer never arrived leaves nothing that a later run would act on:
// above all the next install keeps the packages that it goes back to.
func TestForgetIsOfItsRun(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	p, err := s.remove(w, false)
	if err != nil {
		t.Fatal(err)
	}
	s.Fault("break switching")
	_, err = Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "reconnect" {
			s.Fault("hostkey") // nor does the second connection work
		}
	})
	if err == nil {
		t.Fatal("its answer arrived")
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

// An uninstall whose connection breaks and comes back leaves as little as any other.
func TestForgetAfterReconnect(t *testing.T) {
	s := newTestNode(t)
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
	s.nothingKept()
}

// If one daemon is removed, everything of the other stays.
func TestForgetOneDaemon(t *testing.T) {
	s := newTestNode(t)
	w := wanted(s.packages("1", "exit 0", ""))
	s.install(w)
	only := *w
	only.Daemons = w.Daemons[:1]
	s.uninstall(&only)
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") != "" || s.Get("var/lib/nnf-deploy/packages/nnf-dm.rpm") == "" {
		t.Errorf("%v", s.Files("var/lib/nnf-deploy"))
	}
	only.Daemons = w.Daemons[1:]
	s.uninstall(&only)
	s.nothingKept()
}

// A restart that is pending after an interrupted run stays pending during a run for the
// other daemon, and ends with the removal of the daemon.
func TestPendingIsOfItsDaemon(t *testing.T) {
	s := newTestNode(t)
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
	s.uninstall(&only)
	if got := s.Get("var/lib/nnf-deploy/pending"); got != "" {
		t.Errorf("pending %q", got)
	}
}
