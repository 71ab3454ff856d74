package clientmount

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

func TestMain(m *testing.M) {
	node.RunChild()
	goleak.VerifyTestMain(m)
}

// loop runs a controller on fakes.
type loop struct {
	*bench
	c      *Controller
	cancel context.CancelFunc
	ended  chan error
	lines  []string
	synced int
}

func startLoop(t *testing.T, b *bench, change func(*Options)) *loop {
	l := &loop{bench: b, ended: make(chan error, 1)}
	o := Options{
		Node: "compute-01", Client: b.server, Machine: b.machine, Records: b.rec.records, Mounts: MountsResource("v1alpha7"),
		Limits: Limits{Command: time.Minute, Hook: time.Minute, RetryMax: 30 * time.Second}, Log: slog.New(slog.DiscardHandler),
		ShutdownTimeout: 10 * time.Second, Status: func(s string) { l.lines = append(l.lines, s) }, Synced: func() { l.synced++ },
	}
	if change != nil {
		change(&o)
	}
	l.c = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.ended <- l.c.Run(ctx) }()
	return l
}

func (l *loop) stop() error {
	l.cancel()
	return <-l.ended
}

func TestLoopLife(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, nil)
		l.c.APIState(kube.State{Connected: true})
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		synctest.Wait()
		if l.synced != 1 || !b.machine.mounted(testPath) {
			t.Fatalf("synced %d, mounted %v", l.synced, b.machine.mounted(testPath))
		}
		if got := l.lines[len(l.lines)-1]; got != "1 mount ready for 1 ClientMount; API server answers" {
			t.Errorf("status line %q", got)
		}
		b.machine.done()
		// Our own write comes back by the watch: nothing to do.
		l.c.Upsert(b.server.object())
		synctest.Wait()
		b.expect("after our own write", b.machine.done(), nil)

		b.want(dws.Unmounted)
		l.c.Upsert(b.server.object())
		synctest.Wait()
		b.delete()
		l.c.Upsert(b.server.object())
		synctest.Wait()
		l.c.Delete("default-job7-0-computes")
		synctest.Wait()
		if got := l.lines[len(l.lines)-1]; got != "0 mounts ready for 0 ClientMounts; API server answers" {
			t.Errorf("status line %q", got)
		}
		if len(b.server.written()) != 4 {
			t.Errorf("a life costs four writes")
		}
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// Failures are retried with growing pauses that stay below the ceiling.
func TestLoopBackoff(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		b.machine.fail["mount"] = errors.New("no route")
		l := startLoop(t, b, nil)
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		var pauses []time.Duration
		last := time.Now()
		for range 10 {
			for len(b.machine.done()) == 0 {
				time.Sleep(50 * time.Millisecond)
			}
			pauses = append(pauses, time.Since(last))
			last = time.Now()
		}
		if pauses[1] > 350*time.Millisecond || pauses[9] < 20*time.Second || pauses[9] > 31*time.Second {
			t.Errorf("pauses %v", pauses)
		}
		if got := b.server.written(); len(got) != 2 {
			t.Errorf("the same failure is written once: %q", got)
		}
		l.stop()
	})
}

// What failed for want of the API server goes on when it answers again, and
// does not wait for the end of a long pause.
func TestLoopResume(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		b.server.fail["status"] = errors.New("no answer")
		l := startLoop(t, b, nil)
		l.c.APIState(kube.State{LastError: errors.New("no answer"), Since: time.Now()})
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		time.Sleep(10 * time.Minute)
		if !b.machine.mounted(testPath) || b.server.object().Status.AllReady {
			t.Fatal("mounted and not yet told")
		}
		delete(b.server.fail, "status")
		l.c.APIState(kube.State{Connected: true})
		time.Sleep(2 * time.Second)
		if !b.server.object().Status.AllReady {
			t.Error("not told within two seconds")
		}
		l.stop()
	})
}

// A mount that hangs holds up neither another object nor the probe; a stop
// waits for it no longer than the shutdown time.
func TestLoopStuckMount(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	synctest.Test(t, func(t *testing.T) {
		b.machine.block["mount -t lustre 10.1.1.2@tcp:/job7fs"] = make(chan struct{})
		l := startLoop(t, b, nil)
		other := testObject(dws.TypeLustre)
		other.Name, other.UID = "other", "bbbb-2"
		other.Spec.Mounts[0].MountPath, other.Spec.Mounts[0].Device.Lustre.FileSystemName = "/mnt/nnf/other", "other"
		l.c.Replace([]*dws.ClientMount{b.server.object(), other})
		synctest.Wait()
		if !b.machine.mounted("/mnt/nnf/other") || b.machine.mounted(testPath) {
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
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b.machine.block["hook pre-activate"] = gate
		l := startLoop(t, b, nil)
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		synctest.Wait()
		b.want(dws.Unmounted)
		l.c.Upsert(b.server.object())
		synctest.Wait()
		close(gate)
		synctest.Wait()
		for _, line := range b.machine.done() {
			if strings.HasPrefix(line, "mount") {
				t.Errorf("mounted although nobody wants it any more: %q", line)
			}
		}
		if st := b.server.object().Status; !st.AllReady || st.Mounts[0].State != dws.Unmounted {
			t.Errorf("status %s", describe(&st))
		}
		l.stop()
	})
}

// A long operation says in between that it is under way.
func TestLoopProgress(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		b.machine.block["hook pre-activate"] = gate
		l := startLoop(t, b, nil)
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		time.Sleep(6 * time.Second)
		if got := b.server.written(); len(got) != 2 || got[1] != "status [{mounted false}] false" {
			t.Errorf("writes %q", got)
		}
		close(gate)
		synctest.Wait()
		b.expect("outcome", b.server.written(), []string{"status [{mounted true}] true"})
		l.stop()
	})
}

func TestLoopOrphans(t *testing.T) {
	for _, policy := range []OrphanPolicy{OrphansReport, OrphansUnmount} {
		t.Run(string(policy), func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			synctest.Test(t, func(t *testing.T) {
				l := startLoop(t, b, func(o *Options) { o.Orphans = policy })
				l.c.Replace(nil)
				synctest.Wait()
				if got := b.machine.mounted(testPath); got != (policy == OrphansReport) {
					t.Errorf("mounted: %v", got)
				}
				if got := l.lines[len(l.lines)-1]; strings.Contains(got, "1 orphaned") != (policy == OrphansReport) {
					t.Errorf("status line %q", got)
				}
				l.stop()
			})
		})
	}
}

// An object that can no longer be read is not taken for deleted.
func TestLoopMalformed(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, func(o *Options) { o.Orphans = OrphansUnmount })
		h := l.c.handler()
		h.Replace([]*dws.ClientMount{b.server.object()})
		synctest.Wait()
		h.Malformed("compute-01", b.server.object().Name, errors.New("bad"))
		h.Replace(nil)
		synctest.Wait()
		if !b.machine.mounted(testPath) {
			t.Error("unmounted because it could not be read")
		}
		h.Delete("compute-01", b.server.object().Name)
		synctest.Wait()
		if b.machine.mounted(testPath) {
			t.Error("really deleted now: an orphan")
		}
		l.stop()
	})
}

// A ready mount is looked at again after the verify interval, and repaired.
func TestLoopVerify(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, func(o *Options) { o.Limits.Verify = time.Hour })
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		synctest.Wait()
		b.machine.done()
		b.machine.mu.Lock()
		b.machine.table = nil
		b.machine.mu.Unlock()
		time.Sleep(2 * time.Hour)
		if !b.machine.mounted(testPath) {
			t.Error("not repaired")
		}
		l.stop()
	})
}

func TestLoopAPIStateLine(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, nil)
		l.c.APIState(kube.State{LastError: errors.New("connection refused"), Since: time.Now()})
		synctest.Wait()
		if got := l.lines[len(l.lines)-1]; !strings.Contains(got, "API server has not answered since") || !strings.Contains(got, "connection refused") {
			t.Errorf("status line %q", got)
		}
		l.stop()
		if err := l.c.Probe(context.Background()); !errors.Is(err, errStopped) {
			t.Errorf("probe after the end: %v", err)
		}
	})
}
