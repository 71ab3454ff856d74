package clientmount

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

func TestMain(m *testing.M) {
	node.RunChild()
	goleak.VerifyTestMain(m)
}

func TestLoopLife(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, f, nil)
		l.c.APIState(kube.State{Connected: true})
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		synctest.Wait()
		if l.synced != 1 || !f.machine.mounted(testPath) {
			t.Fatalf("synced %d, mounted %v", l.synced, f.machine.mounted(testPath))
		}
		if got := l.lines[len(l.lines)-1]; got != "1 mount ready for 1 ClientMount; API server answers" {
			t.Errorf("status line %q", got)
		}
		f.machine.done()
		// Our own write comes back by the watch: nothing to do.
		l.c.Upsert(f.server.object())
		synctest.Wait()
		f.expect("after our own write", f.machine.done(), nil)

		f.want(dws.Unmounted)
		l.c.Upsert(f.server.object())
		synctest.Wait()
		f.delete()
		l.c.Upsert(f.server.object())
		synctest.Wait()
		l.c.Delete("default-job7-0-computes")
		synctest.Wait()
		if got := l.lines[len(l.lines)-1]; got != "0 mounts ready for 0 ClientMounts; API server answers" {
			t.Errorf("status line %q", got)
		}
		if len(f.server.written()) != 4 {
			t.Errorf("a life costs four writes")
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// Failures are retried with growing pauses that stay below the ceiling.
func TestLoopBackoff(t *testing.T) {
	f := newFixture(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		f.machine.fail["mount"] = errors.New("no route")
		l := startLoop(t, f, nil)
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		var pauses []time.Duration
		last := time.Now()
		for range 10 {
			wait.Until(t, "the next attempt", func() bool { return len(f.machine.done()) > 0 })
			pauses = append(pauses, time.Since(last))
			last = time.Now()
		}
		if pauses[1] > 350*time.Millisecond || pauses[9] < 20*time.Second || pauses[9] > 31*time.Second {
			t.Errorf("pauses %v", pauses)
		}
		if got := f.server.written(); len(got) != 2 {
			t.Errorf("the same failure is written once: %q", got)
		}
		l.stop()
	})
}

// What failed for want of the API server goes on when it answers again, and
// does not wait for the end of a long pause.
func TestLoopResume(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		f.server.fail["status"] = errors.New("no answer")
		l := startLoop(t, f, nil)
		l.c.APIState(kube.State{LastError: errors.New("no answer"), Since: time.Now()})
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		wait.Advance(10 * time.Minute)
		if !f.machine.mounted(testPath) || f.server.object().Status.AllReady {
			t.Fatal("mounted and not yet told")
		}
		delete(f.server.fail, "status")
		l.c.APIState(kube.State{Connected: true})
		wait.Advance(2 * time.Second)
		if !f.server.object().Status.AllReady {
			t.Error("not told within two seconds")
		}
		l.stop()
	})
}

// A mount that hangs holds up neither another object nor the probe; a stop
// waits for it no longer than the shutdown time.
func TestLoopStuckMount(t *testing.T) {
	f := newFixture(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		f.machine.block["mount -t lustre 10.1.1.2@tcp:/job7fs"] = make(chan struct{})
		l := startLoop(t, f, nil)
		other := testObject(dws.TypeLustre)
		other.Name, other.UID = "other", "bbbb-2"
		other.Spec.Mounts[0].MountPath, other.Spec.Mounts[0].Device.Lustre.FileSystemName = "/mnt/nnf/other", "other"
		l.c.Replace([]*dws.ClientMount{f.server.object(), other})
		synctest.Wait()
		if !f.machine.mounted("/mnt/nnf/other") || f.machine.mounted(testPath) {
			t.Fatal("the stuck mount held up the other")
		}
		if err := l.c.Probe(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := l.c.Running(); got != "default-job7-0-computes" {
			t.Errorf("running: %q", got)
		}
		began := time.Now()
		l.stop()
		if d := time.Since(began); d > 14*time.Second || d < 10*time.Second {
			t.Errorf("stopped after %v", d)
		}
	})
}

// A newer state cuts the sequence short between two steps.
func TestLoopSuperseded(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f.machine.block["hook pre-activate"] = gate
		l := startLoop(t, f, nil)
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		synctest.Wait()
		f.want(dws.Unmounted)
		l.c.Upsert(f.server.object())
		synctest.Wait()
		close(gate)
		synctest.Wait()
		for _, line := range f.machine.done() {
			if strings.HasPrefix(line, "mount") {
				t.Errorf("mounted although nobody wants it any more: %q", line)
			}
		}
		if st := f.server.object().Status; !st.AllReady || st.Mounts[0].State != dws.Unmounted {
			t.Errorf("status %s", describe(&st))
		}
		l.stop()
	})
}

// A long operation says in between that it is under way.
func TestLoopProgress(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		f.machine.block["hook pre-activate"] = gate
		l := startLoop(t, f, nil)
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		wait.Advance(6 * time.Second)
		if got := f.server.written(); len(got) != 2 || got[1] != "status [{mounted false}] false" {
			t.Errorf("writes %q", got)
		}
		close(gate)
		synctest.Wait()
		f.expect("outcome", f.server.written(), []string{"status [{mounted true}] true"})
		l.stop()
	})
}

// An object that can no longer be read is not taken for deleted.
func TestLoopMalformed(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, f, func(o *Options) { o.Orphans = OrphansUnmount })
		h := l.c.handler()
		h.Replace([]*dws.ClientMount{f.server.object()})
		synctest.Wait()
		h.Malformed("compute-01", f.server.object().Name, errors.New("bad"))
		h.Replace(nil)
		synctest.Wait()
		if !f.machine.mounted(testPath) {
			t.Error("unmounted because it could not be read")
		}
		h.Delete("compute-01", f.server.object().Name)
		synctest.Wait()
		if f.machine.mounted(testPath) {
			t.Error("really deleted now: an orphan")
		}
		l.stop()
	})
}

// A ready mount is looked at again after the verify interval, and repaired.
func TestLoopVerify(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, f, func(o *Options) { o.Limits.Verify = time.Hour })
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		synctest.Wait()
		f.machine.done()
		f.machine.mu.Lock()
		f.machine.table = nil
		f.machine.mu.Unlock()
		wait.Advance(2 * time.Hour)
		if !f.machine.mounted(testPath) {
			t.Error("not repaired")
		}
		l.stop()
	})
}

// Only those that wait for the path that has become free start again.
func TestOthersStayBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, err := OpenRecords(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		blocked := testObject(dws.TypeLustre)
		blocked.Spec.Mounts[0].MountPath = "/mnt/a"
		server := newFakeServer(blocked, testProfile())
		c := New(Options{
			Node: "compute-01", Client: server, Machine: newFakeMachine(), Records: records, Mounts: MountsResource("v1alpha7"),
			Limits: Limits{Command: time.Minute, Hook: time.Minute, RetryMax: time.Hour}, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()
		holder, other := testObject(dws.TypeLustre), testObject(dws.TypeLustre)
		holder.Name, holder.UID, holder.Spec.Mounts[0].MountPath = "holder", "hhhh-1", "/mnt/a/below"
		other.Name, other.UID, other.Spec.Mounts[0].MountPath = "other", "oooo-1", "/mnt/b"
		c.Replace([]*dws.ClientMount{holder, other})
		synctest.Wait()
		c.Upsert(server.object())
		wait.Advance(30 * time.Minute) // the pauses of its retries are long now
		server.mu.Lock()
		before := server.gets
		server.mu.Unlock()
		changed := *other
		changed.Spec.DesiredState, changed.Generation = dws.Unmounted, 2
		c.Upsert(&changed)
		synctest.Wait()
		server.mu.Lock()
		if n := server.gets - before; n != 1 {
			t.Errorf("%d reads of the profile for one unmount", n)
		}
		server.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// A path that becomes free while the attempt that it blocks still reports is
// not missed.
func TestFreedWhileReporting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFixture(t, dws.TypeLustre)
		l := startLoop(t, f, func(o *Options) { o.Limits.RetryMax = time.Hour })
		l.c.Replace(nil)
		o := &object{name: "x", newest: f.server.object(), ran: f.server.object(), running: true, failures: 10}
		l.c.do(func() {
			l.c.objects["x"] = o
			l.c.ended(o, result{retry: true, failed: true, blocked: &conflictError{uid: "gone", otherPath: testPath}})
		})
		wait.Advance(time.Second)
		if !f.machine.mounted(testPath) {
			t.Error("waits for a path that is free")
		}
		l.stop()
	})
}

// An object that waits for the path of another starts as soon as the path is
// free, not after the pause of a retry.
func TestPathThatBecomesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, err := OpenRecords(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		server := newFakeServer(testObject(dws.TypeLustre), testProfile())
		machine := newFakeMachine()
		c := New(Options{
			Node: "compute-01", Client: server, Machine: machine, Records: records, Mounts: MountsResource("v1alpha7"),
			Limits: Limits{Command: time.Minute, Hook: time.Minute, RetryMax: time.Hour}, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()

		holder := testObject(dws.TypeLustre)
		holder.Name, holder.UID = "holder", "hhhh-1"
		holder.Spec.Mounts[0].MountPath = testPath + "/below"
		c.Replace([]*dws.ClientMount{holder})
		synctest.Wait()
		if !machine.mounted(testPath + "/below") {
			t.Fatal("the first one is not mounted")
		}
		c.Upsert(server.object())
		wait.Advance(2 * time.Minute) // the pauses of its retries grow
		if st := server.object().Status; st.Error == nil {
			t.Fatalf("status %s", describe(&st))
		}
		changed := *holder
		changed.Spec.DesiredState, changed.Generation = dws.Unmounted, 2
		c.Upsert(&changed)
		wait.Advance(time.Second)
		if st := server.object().Status; !st.AllReady || !machine.mounted(testPath) {
			t.Errorf("still waiting: %s", describe(&st))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// Idle is said once after work, later than the work, and never again by itself.
func TestIdleIsSaidOnce(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		var said atomic.Int32
		l := startLoop(t, f, func(o *Options) { o.Idle = func() { said.Add(1) } })
		expect := func(what string, n int32) {
			t.Helper()
			synctest.Wait()
			if got := said.Load(); got != n {
				t.Errorf("%s: said %d times, want %d", what, got, n)
			}
		}
		wait.Advance(time.Hour)
		expect("before the first list", 0)
		l.c.Replace(nil)
		expect("right after the list", 0)
		wait.Advance(idleAfter)
		expect("after the list", 1)

		wait.Advance(time.Hour)
		for range 3 { // what comes without work, as the watchdog's probe
			if err := l.c.Probe(context.Background()); err != nil {
				t.Error(err)
			}
		}
		wait.Advance(time.Hour)
		expect("nothing happened", 1)

		l.c.Upsert(f.server.object())
		wait.Advance(idleAfter - 1)
		expect("right after a mount", 1)
		f.want(dws.Unmounted)
		l.c.Upsert(f.server.object())
		wait.Advance(idleAfter - 1)
		expect("the next work began before", 1)
		wait.Advance(time.Nanosecond)
		expect("after the unmount", 2)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// While an attempt hangs the daemon is not idle, and stopping leaves no timer.
func TestIdleWaitsForAttempts(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		said := make(chan struct{}, 9)
		gate := make(chan struct{})
		f.machine.block["mount"] = gate
		l := startLoop(t, f, func(o *Options) { o.Idle = func() { said <- struct{}{} } })
		l.c.Replace([]*dws.ClientMount{f.server.object()})
		wait.Advance(time.Minute)
		if len(said) != 0 {
			t.Error("idle while a mount hangs")
		}
		close(gate)
		wait.Advance(idleAfter - 1)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		wait.Advance(time.Minute)
		if len(said) != 0 {
			t.Error("idle was said after the end")
		}
	})
}
