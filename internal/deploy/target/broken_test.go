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

// If the archive does not arrive completely, nothing changes, and nothing is left behind.
func TestConnectionBreaksDuringUpload(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.bare("1", "exit 0")))
	before := s.state()
	w := wanted(s.bare("2", "exit 0"))
	size := newArchive(s.plan(w), "0123456789abcdef").size + int64(len("archive 12345\n"))
	for _, n := range []int64{0, 1, 14, 200, 600, 1500, size / 3, size / 2, size - 1200, size - 1, size} {
		s.Fault(fmt.Sprint("cut ", n))
		_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, func() *Plan { s.Fault(""); p := s.plan(w); s.Fault(fmt.Sprint("cut ", n)); return p }(), func(string) {})
		if err == nil {
			t.Fatalf("no error after %d bytes", n)
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
		t.Error("the next run did not install the new version")
	}
}

// settle waits until no process holds the lock of the node.
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

// If the connection breaks before "go", the node stays unchanged. If it breaks after "go", the
// switch continues, and Apply fetches the result.
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
		t.Error("the node has changed without \"go\"")
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
		t.Error("the node does not have the new version")
	}
	s.nothingStaged()
}

// After Ctrl-C, a node before the switch stays unchanged; during the switch, Apply waits.
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
				t.Errorf("during the switch: %v %+v", err, o)
			}
			continue
		}
		if e := (*remote.Error)(nil); !errors.As(err, &e) || e.Kind != remote.Interrupted {
			t.Errorf("at %s: %v", at, err)
		}
		if s.state() != before {
			t.Errorf("at %s: the node has changed", at)
		}
		s.nothingStaged()
	}
}

// If nnf-deploy stops waiting during the switch, the node completes the switch.
func TestStopWaiting(t *testing.T) {
	s := newTestNode(t)
	s.install(wanted(s.bare("1", "exit 0")))
	w := wanted(s.bare("2", "sleep 0.5; exit 0"))
	p := s.plan(w)
	s.Fault("hold switching")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := Apply(ctx, t.Context(), s.shell, s.Name, p, func(step string) {
		if step == "switch" {
			time.AfterFunc(300*time.Millisecond, func() { cancel(errors.New("enough")) })
		}
	})
	if err == nil || err.Error() != "stopped waiting during the switch: enough" {
		t.Errorf("%v", err)
	}
	s.Fault("")
	s.settle()
	if !s.plan(w).Empty() {
		t.Errorf("the node does not have the new version: %s", changes(s.plan(w)))
	}
	s.nothingStaged()
}

// If the switch is killed, as by a power failure, the next run completes it, including
// restarts that are missing although all files are new.
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
		t.Error("the next run did not complete the switch")
	}
}

// Of two concurrent runs, the second fails.
func TestConcurrentRuns(t *testing.T) {
	s := newTestNode(t)
	p := s.plan(wanted(s.bare("1", `until [ -e "$R/run/fake/refused" ]; do /bin/sleep 0.05; done; exit 0`)))
	first := make(chan error)
	started := make(chan struct{})
	go func() {
		_, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(step string) {
			if step == "switch" {
				close(started)
			}
		})
		first <- err
	}()
	<-started
	if _, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {}); err == nil || !strings.Contains(err.Error(), "another nnf-deploy is changing this node") {
		t.Errorf("the second: %v", err)
	}
	s.Put("run/fake/refused", "", 0o600)
	if err := <-first; err != nil {
		t.Errorf("the first: %v", err)
	}
}

// uninstall removes the daemons.
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

// nothingKept checks that the state directory of nnf-deploy is removed.
func (s *testNode) nothingKept() {
	s.t.Helper()
	if left := s.Files(product.StateDirectory); len(left) > 0 {
		s.t.Errorf("%v", left)
	}
}

// If the result of an uninstall is never confirmed, its leftovers do not affect later runs: the
// next install keeps its packages, which are needed to restore this version.
func TestForgetOnlyOwnRun(t *testing.T) {
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
			s.Fault("hostkey") // reconnecting fails, too
		}
	})
	if err == nil {
		t.Fatal("no error")
	}
	s.Fault("")
	s.settle()
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") != "" || s.Get("usr/bin/clientmountd") != "" {
		t.Error("the daemon was not removed")
	}
	if p, err := s.remove(w, false); err != nil || changes(p) != "remove /var/lib/nnf-deploy\n" {
		t.Errorf("another uninstall: %v %s", err, changes(p))
	}
	s.install(w)
	before := s.state()
	if s.Get("var/lib/nnf-deploy/packages/clientmountd.rpm") == "" {
		t.Error("the package was not kept")
	}
	o, err := s.apply(wanted(s.packages("2", "exit 1", "")))
	if err == nil || o.State != "old" || s.state() != before {
		t.Errorf("the old version was not restored: %v %+v", err, o)
	}
}

// An uninstall that has to reconnect removes the state directory, too.
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

// The removal of one daemon does not affect the other.
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

// A restart that is pending after an interrupted run stays pending when the other daemon is
// installed, and is no longer pending when the daemon is removed.
func TestPendingPerDaemon(t *testing.T) {
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

// The switch does not wait for a unit that does not exist, however long the limit is.
func TestMissingUnit(t *testing.T) {
	s := newTestNode(t)
	p := new(Plan)
	p.change("start", "none.service", "")
	p.step("ready", "none.service", seconds(24*time.Hour))
	o, err := Apply(t.Context(), t.Context(), s.shell, s.Name, p, func(string) {})
	if err == nil || o.State != "unready" || !strings.HasPrefix(o.Cause, "none.service is not ready after ") {
		t.Errorf("%v %+v", err, o)
	}
}
