package clientmount

import (
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// An object that was replaced while an attempt ran leaves an orphan like any
// other that is gone.
func TestReplacedWhileRunning(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, func(o *Options) { o.Orphans = OrphansUnmount })
		l.c.Replace([]*dws.ClientMount{b.server.object()})
		synctest.Wait()
		hang := make(chan struct{})
		b.machine.mu.Lock()
		b.machine.block["umount "+testPath] = hang
		b.machine.mu.Unlock()
		b.want(dws.Unmounted)
		l.c.Upsert(b.server.object())
		synctest.Wait()
		b.server.mu.Lock()
		b.server.cm = testObject(dws.TypeLustre)
		b.server.cm.UID, b.server.cm.Spec.Mounts[0].MountPath = "bbbb-2", "/mnt/nnf/elsewhere"
		b.server.mu.Unlock()
		l.c.Delete(b.server.object().Name)
		l.c.Upsert(b.server.object())
		b.machine.mu.Lock()
		b.machine.fail["umount "+testPath] = os.ErrDeadlineExceeded
		b.machine.mu.Unlock()
		close(hang)
		synctest.Wait()
		b.machine.mu.Lock()
		delete(b.machine.fail, "umount "+testPath)
		b.machine.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if b.machine.mounted(testPath) || !b.machine.mounted("/mnt/nnf/elsewhere") {
			t.Errorf("table %+v", b.machine.table)
		}
		l.stop()
	})
}

// A record that cannot be written or removed does not make an orphan be undone
// again and again.
func TestOrphanWithUnwritableRecord(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.edit(twoMounts)
	b.reconcile()
	// Nothing can be written where a directory is in the way.
	if err := os.MkdirAll(filepath.Join(b.rec.records.dir, "aaaa-1.json"+halfWritten, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	b.machine.done()
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(t, b, func(o *Options) { o.Orphans = OrphansUnmount })
		l.c.Replace(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		hooks := 0
		for _, line := range b.machine.done() {
			if line == "hook post-deactivate" {
				hooks++
			}
		}
		if len(b.machine.table) != 0 || hooks != 1 {
			t.Errorf("the hook ran %d times, table %+v", hooks, b.machine.table)
		}
		l.stop()
	})
}

// A record that could not be removed is none any more, until the next start.
func TestRecordThatCannotBeRemoved(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	records := b.rec.records
	file := filepath.Join(records.dir, "aaaa-1.json")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(file, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := records.Remove("aaaa-1"); err == nil {
		t.Fatal("it was removed")
	}
	if r, err := records.Load("aaaa-1"); r != nil || err != nil {
		t.Errorf("%+v %v", r, err)
	}
	if list, err := records.List(); err != nil || len(list) != 1 || list[0].UID != "aaaa-1" || list[0].pending() {
		t.Errorf("%+v %v", list, err)
	}
	if err := os.RemoveAll(file); err != nil {
		t.Fatal(err)
	}
	b.server.cm.UID = "aaaa-1"
	if err := records.Save(newRecord(b.server.cm, time.Now())); err != nil {
		t.Fatal(err)
	}
	if r, err := records.Load("aaaa-1"); r == nil || err != nil {
		t.Errorf("a new record is not found: %v", err)
	}
}
