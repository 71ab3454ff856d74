package clientmount

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

func TestMain(m *testing.M) {
	node.RunChild()
	goleak.VerifyTestMain(m)
}

func TestLoopLifecycle(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		l.c.apiState(kube.State{Connected: true})
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		if l.synced != 1 || !l.machine.mounted(testPath) {
			t.Fatalf("synced %d, mounted %v", l.synced, l.machine.mounted(testPath))
		}
		if got := l.lines[len(l.lines)-1]; got != "1 mount ready for 1 ClientMount; API server answers" {
			t.Errorf("status line %q", got)
		}
		l.machine.done()
		// The watch reports our own write: nothing to do.
		l.Upsert(l.server.object())
		synctest.Wait()
		l.expect("after our own write", l.machine.done(), nil)

		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		l.delete()
		l.Upsert(l.server.object())
		synctest.Wait()
		l.Delete("compute-01", "default-job7-0-computes")
		synctest.Wait()
		if got := l.lines[len(l.lines)-1]; got != "0 mounts ready for 0 ClientMounts; API server answers" {
			t.Errorf("status line %q", got)
		}
		if len(l.server.written()) != 4 {
			t.Errorf("a lifecycle must take four writes")
		}
	})
}

// Failures are retried with growing pauses, at most RetryMax.
func TestLoopBackoff(t *testing.T) {
	runLoop(t, dws.TypeLustre, nil, func(t *testing.T, l *loop) {
		l.machine.fail["mount"] = errors.New("no route")
		l.Replace([]*dws.ClientMount{l.server.object()})
		var pauses []time.Duration
		last := time.Now()
		for range 10 {
			wait.Until(t, "the next attempt", func() bool { return len(l.machine.done()) > 0 })
			pauses = append(pauses, time.Since(last))
			last = time.Now()
		}
		if pauses[1] > 350*time.Millisecond || pauses[9] < 20*time.Second || pauses[9] > 31*time.Second {
			t.Errorf("pauses %v", pauses)
		}
		if got := l.server.written(); len(got) != 2 {
			t.Errorf("the same failure must be written once: %q", got)
		}
	})
}

// An attempt that failed because the API server was down is retried when the server is
// back, without waiting for the end of a long pause.
func TestLoopResume(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		l.server.fail["status"] = errors.New("no answer")
		l.c.apiState(kube.State{LastError: errors.New("no answer"), Since: time.Now()})
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(10 * time.Minute)
		if !l.machine.mounted(testPath) || l.server.object().Status.AllReady {
			t.Fatal("the object must be mounted but not reported yet")
		}
		delete(l.server.fail, "status")
		l.c.apiState(kube.State{Connected: true})
		wait.Advance(2 * time.Second)
		if !l.server.object().Status.AllReady {
			t.Error("not reported within two seconds")
		}
	})
}

// A hanging mount delays neither another object nor the probe; a stop waits for it at
// most for the shutdown timeout.
func TestLoopStuckMount(t *testing.T) {
	runLoop(t, dws.TypeLustre, nil, func(t *testing.T, l *loop) {
		l.machine.block["mount -t lustre 10.1.1.2@tcp:/job7fs"] = make(chan struct{})
		other := testObject(dws.TypeLustre)
		other.Name, other.UID = "other", "bbbb-2"
		other.Spec.Mounts[0].MountPath, other.Spec.Mounts[0].Device.Lustre.FileSystemName = "/mnt/nnf/other", "other"
		l.Replace([]*dws.ClientMount{l.server.object(), other})
		synctest.Wait()
		if !l.machine.mounted("/mnt/nnf/other") || l.machine.mounted(testPath) {
			t.Fatal("the stuck mount delayed the other one")
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

// A change of the object interrupts the sequence between two steps.
func TestLoopSuperseded(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		gate := make(chan struct{})
		l.machine.block["hook pre-activate"] = gate
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		close(gate)
		synctest.Wait()
		for _, line := range l.machine.done() {
			if strings.HasPrefix(line, "mount") {
				t.Errorf("mounted although the desired state has changed: %q", line)
			}
		}
		if st := l.server.object().Status; !st.AllReady || st.Mounts[0].State != dws.Unmounted {
			t.Errorf("status %s", describe(&st))
		}
	})
}

// When the daemon stops, a running command finishes, no further step starts, and the
// status shows the current state.
func TestLoopStopBetweenSteps(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		gate := make(chan struct{})
		l.machine.block["hook pre-activate"] = gate
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.server.written()
		l.machine.done()
		l.cancel()
		synctest.Wait()
		close(gate)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		l.expect("commands after the stop", l.machine.done(), nil)
		l.expect("writes", l.server.written(), []string{"status [{mounted false}] false"})
		if cause := context.Cause(l.c.steps); cause != errStopping {
			t.Errorf("the steps ended because of %v", cause)
		}
		if l.c.commands.Err() != nil && context.Cause(l.c.commands) != errStopped {
			t.Errorf("the commands ended because of %v", context.Cause(l.c.commands))
		}
	})
}

// The status is correct even if the object changed back before the daemon stops, although
// no further attempt could correct it.
func TestLoopStopAfterSuperseded(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		gate := make(chan struct{})
		l.machine.block["umount"] = gate
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		l.want(dws.Mounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		l.server.written()
		l.cancel()
		synctest.Wait()
		close(gate)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		if l.machine.mounted(testPath) {
			t.Fatal("still mounted")
		}
		l.expect("writes", l.server.written(), []string{"status [{unmounted false}] false"})
	})
}

// A long operation publishes its progress.
func TestLoopProgress(t *testing.T) {
	runLoop(t, dws.TypeXFS, nil, func(t *testing.T, l *loop) {
		gate := make(chan struct{})
		l.machine.block["hook pre-activate"] = gate
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(6 * time.Second)
		if got := l.server.written(); len(got) != 2 || got[1] != "status [{mounted false}] false" {
			t.Errorf("writes %q", got)
		}
		close(gate)
		synctest.Wait()
		l.expect("outcome", l.server.written(), []string{"status [{mounted true}] true"})
	})
}

// An object that can no longer be decoded is not treated as deleted.
func TestLoopMalformed(t *testing.T) {
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Orphans = OrphansUnmount }, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.Malformed("compute-01", l.server.object().Name, errors.New("bad"))
		l.Replace(nil)
		synctest.Wait()
		if !l.machine.mounted(testPath) {
			t.Error("unmounted because it could not be decoded")
		}
		l.Delete("compute-01", l.server.object().Name)
		synctest.Wait()
		if l.machine.mounted(testPath) {
			t.Error("a deleted object must become an orphan")
		}
	})
}

// A ready mount is checked after the verify interval, and mounted again.
func TestLoopVerify(t *testing.T) {
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Limits.Verify = time.Hour }, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		l.machine.done()
		l.machine.mu.Lock()
		l.machine.table = nil
		l.machine.mu.Unlock()
		wait.Advance(2 * time.Hour)
		if !l.machine.mounted(testPath) {
			t.Error("not mounted again")
		}
	})
}

// Only objects that wait for the path that has become free start again.
func TestOtherObjectsStayBlocked(t *testing.T) {
	runLoop(t, dws.TypeLustre, longRetries, func(t *testing.T, l *loop) {
		holder, other := lustreMount("holder", "/mnt/a/below"), lustreMount("other", "/mnt/b")
		l.edit(at("/mnt/a"))
		l.Replace([]*dws.ClientMount{holder, other})
		synctest.Wait()
		l.Upsert(l.server.object())
		wait.Advance(30 * time.Minute) // until the pauses of its retries are long
		gets := func() int {
			l.server.mu.Lock()
			defer l.server.mu.Unlock()
			return l.server.gets
		}
		before := gets()
		l.Upsert(unmounted(other))
		synctest.Wait()
		if n := gets() - before; n != 1 {
			t.Errorf("%d reads of the profile for one unmount", n)
		}
	})
}

// A path that becomes free while the blocked attempt still reports is noticed.
func TestFreedWhileReporting(t *testing.T) {
	runLoop(t, dws.TypeLustre, longRetries, func(t *testing.T, l *loop) {
		l.Replace(nil)
		o := &object{name: "x", newest: l.server.object(), ran: l.server.object(), running: true, failures: 10}
		l.c.do(func() {
			l.c.objects["x"] = o
			l.c.ended(o, result{retry: true, failed: true, blocked: &conflictError{uid: "gone", otherPath: testPath}})
		})
		wait.Advance(time.Second)
		if !l.machine.mounted(testPath) {
			t.Error("still waits for a free path")
		}
	})
}

// An object that waits for the path of another object starts as soon as the path is free,
// without waiting for the pause of a retry.
func TestPathBecomesFree(t *testing.T) {
	runLoop(t, dws.TypeLustre, longRetries, func(t *testing.T, l *loop) {
		holder := lustreMount("holder", testPath+"/below")
		l.Replace([]*dws.ClientMount{holder})
		synctest.Wait()
		if !l.machine.mounted(testPath + "/below") {
			t.Fatal("the first one is not mounted")
		}
		l.Upsert(l.server.object())
		wait.Advance(2 * time.Minute) // until the pauses of its retries have grown
		if st := l.server.object().Status; st.Error == nil {
			t.Fatalf("status %s", describe(&st))
		}
		l.Upsert(unmounted(holder))
		wait.Advance(time.Second)
		if st := l.server.object().Status; !st.AllReady || !l.machine.mounted(testPath) {
			t.Errorf("still waiting: %s", describe(&st))
		}
	})
}

func longRetries(o *Options) { o.Limits.RetryMax = time.Hour }

// lustreMount returns another object that mounts the same file system at a path.
func lustreMount(name, path string) *dws.ClientMount {
	cm := testObject(dws.TypeLustre)
	cm.Name, cm.UID, cm.Spec.Mounts[0].MountPath = name, types.UID("uid-"+name), path
	return cm
}

// unmounted returns the object with the desired state unmounted.
func unmounted(cm *dws.ClientMount) *dws.ClientMount {
	changed := *cm
	changed.Spec.DesiredState = dws.Unmounted
	changed.Generation++
	return &changed
}

// Idle is called once, some time after the work, and not again without work.
func TestIdleIsCalledOnce(t *testing.T) {
	var called atomic.Int32
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Idle = func() { called.Add(1) } }, func(t *testing.T, l *loop) {
		expect := func(what string, n int32) {
			t.Helper()
			synctest.Wait()
			if got := called.Load(); got != n {
				t.Errorf("%s: called %d times, want %d", what, got, n)
			}
		}
		wait.Advance(time.Hour)
		expect("before the first list", 0)
		l.Replace(nil)
		expect("right after the list", 0)
		wait.Advance(idleAfter)
		expect("after the list", 1)

		wait.Advance(time.Hour)
		for range 3 { // calls without work, such as the watchdog's probe
			if err := l.c.Probe(context.Background()); err != nil {
				t.Error(err)
			}
		}
		wait.Advance(time.Hour)
		expect("nothing happened", 1)

		l.Upsert(l.server.object())
		wait.Advance(idleAfter - 1)
		expect("right after a mount", 1)
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		wait.Advance(idleAfter - 1)
		expect("the next work started before", 1)
		wait.Advance(time.Nanosecond)
		expect("after the unmount", 2)
	})
}

// While an attempt hangs, the daemon is not idle; stopping leaves no timer.
func TestIdleWaitsForAttempts(t *testing.T) {
	var called atomic.Int32
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Idle = func() { called.Add(1) } }, func(t *testing.T, l *loop) {
		gate := make(chan struct{})
		l.machine.block["mount"] = gate
		l.Replace([]*dws.ClientMount{l.server.object()})
		wait.Advance(time.Minute)
		if called.Load() != 0 {
			t.Error("idle while a mount hangs")
		}
		close(gate)
		wait.Advance(idleAfter - 1)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
		wait.Advance(time.Minute)
		if called.Load() != 0 {
			t.Error("Idle was called after the stop")
		}
	})
}
