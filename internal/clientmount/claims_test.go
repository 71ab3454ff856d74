package clientmount

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
)

// attempt makes the attempt that unmountOne is called on.
func (b *bench) attempt() *attempt {
	cm := b.server.object()
	return &attempt{task: *b.task(string(cm.UID)), w: b.work, cm: cm}
}

// Who has had the turn to unmount uses the mount no longer, also before the
// record says so: of two that leave at the same time the last one unmounts.
func TestBothLeaveAtOnce(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
	b := a.beside("job8", "bbbb-2", nil)
	b.reconcile()
	for _, leaves := range []*bench{a, b} {
		m := &leaves.work.record.Mounts[0]
		plan := m.Plan
		if _, _, err := leaves.attempt().unmountOne(&plan, m); err != nil {
			t.Fatal(err)
		}
	}
	if a.machine.mounted(testPath) || a.machine.lvs[testVG+"/"+testLV] {
		t.Error("both have left and the mount is still there")
	}
}

// An object that has only reserved its path keeps no mount: it may never come
// to record that it uses it.
func TestReservedIsNotUsed(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
	b := a.beside("job8", "bbbb-2", nil)
	b.server.fail["finalizer"] = errors.New("API server away")
	b.reconcile()
	a.want(dws.Unmounted)
	if a.reconcile(); a.machine.mounted(testPath) {
		t.Fatal("left to an object that has nothing on record")
	}
	delete(b.server.fail, "finalizer")
	if res := b.reconcile(); res.failed || !a.machine.mounted(testPath) {
		t.Error(describe(&b.server.object().Status))
	}
}

// A path that was reserved is free again when the object turns back, or is
// refused, before anything was mounted.
func TestReservedPathIsGivenBack(t *testing.T) {
	for name, change := range map[string]func(*dws.ClientMount){
		"unmounted": func(cm *dws.ClientMount) { cm.Spec.DesiredState = dws.Unmounted },
		"refused":   func(cm *dws.ClientMount) { cm.Spec.Node = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			a := newBench(t, dws.TypeXFS)
			a.server.fail["finalizer"] = errors.New("API server away")
			a.reconcile()
			delete(a.server.fail, "finalizer")
			a.edit(change)
			a.reconcile()
			b := a.beside("job8", "bbbb-2", otherVolume)
			if b.rec.reconcile(t.Context(), t.Context(), b.work, b.server.object()); b.server.object().Status.Error != nil {
				if text := b.server.object().Status.Error.DebugMessage; text == "" || b.work.record == nil {
					t.Errorf("still blocked: %s", text)
				}
			}
		})
	}
}

// What is handed over does not pile up with whoever stays.
func TestHandedOverOften(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
	m := a.work.record.Mounts[0]
	for range 5 {
		a.rec.registry.handOver("another", &m)
	}
	if n := len(a.rec.registry.users["aaaa-1"].handed); n != 1 {
		t.Errorf("%d notes about one mount", n)
	}
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
		time.Sleep(30 * time.Minute) // virtual: the pauses of its retries are long now
		synctest.Wait()
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
		b := newBench(t, dws.TypeLustre)
		l := startLoop(t, b, func(o *Options) { o.Limits.RetryMax = time.Hour })
		l.c.Replace(nil)
		o := &object{name: "x", newest: b.server.object(), ran: b.server.object(), running: true, failures: 10}
		l.c.do(func() {
			l.c.objects["x"] = o
			l.c.ended(o, result{retry: true, failed: true, blocked: &conflictError{uid: "gone", otherPath: testPath}})
		})
		time.Sleep(time.Second)
		synctest.Wait()
		if !b.machine.mounted(testPath) {
			t.Error("waits for a path that is free")
		}
		l.stop()
	})
}

// While an edited object exchanges the volume at its path, the path is free for
// a moment. Who takes it then keeps it.
func TestPathTakenDuringExchange(t *testing.T) {
	a := newBench(t, dws.TypeLustre)
	a.reconcile()
	b := a.beside("job8", "bbbb-2", nil)
	p := a.work.record.Mounts[0].Plan
	a.edit(func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Device.Lustre.FileSystemName = "job8fs" })
	a.machine.onLine = func(line string) {
		if line == "umount "+testPath {
			if err := a.rec.registry.reserve("bbbb-2", "job8", []*plan.Plan{&p}); err != nil {
				t.Error(err)
			}
		}
	}
	if res := a.reconcile(); res.blocked == nil || a.machine.mounted(testPath) {
		t.Errorf("%s, table %+v", describe(&a.server.object().Status), a.machine.table)
	}
	a.machine.onLine = nil
	if res := b.reconcile(); res.failed {
		t.Error(describe(&b.server.object().Status))
	}
	if res := a.reconcile(); res.blocked == nil || len(a.machine.table) != 1 {
		t.Errorf("%s, table %+v", describe(&a.server.object().Status), a.machine.table)
	}
}
