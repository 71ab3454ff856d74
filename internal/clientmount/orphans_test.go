package clientmount

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// An object that was replaced while an attempt ran leaves an orphan like any
// other that is gone.
func TestReplacedWhileRunning(t *testing.T) {
	runLoop(t, dws.TypeXFS, func(o *Options) { o.Orphans = OrphansUnmount }, func(t *testing.T, l *loop) {
		l.Replace([]*dws.ClientMount{l.server.object()})
		synctest.Wait()
		hang := make(chan struct{})
		l.machine.mu.Lock()
		l.machine.block["umount "+testPath] = hang
		l.machine.mu.Unlock()
		l.want(dws.Unmounted)
		l.Upsert(l.server.object())
		synctest.Wait()
		l.server.mu.Lock()
		l.server.cm = testObject(dws.TypeLustre)
		l.server.cm.UID, l.server.cm.Spec.Mounts[0].MountPath = "bbbb-2", "/mnt/nnf/elsewhere"
		l.server.mu.Unlock()
		l.Delete("compute-01", l.server.object().Name)
		l.Upsert(l.server.object())
		l.machine.mu.Lock()
		l.machine.fail["umount "+testPath] = os.ErrDeadlineExceeded
		l.machine.mu.Unlock()
		close(hang)
		synctest.Wait()
		l.machine.mu.Lock()
		delete(l.machine.fail, "umount "+testPath)
		l.machine.mu.Unlock()
		wait.Advance(time.Minute)
		if l.machine.mounted(testPath) || !l.machine.mounted("/mnt/nnf/elsewhere") {
			t.Errorf("table %+v", l.machine.table)
		}
	})
}

// A record that cannot be written or removed does not make an orphan be undone
// again and again.
func TestOrphanWithUnwritableRecord(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.reconcile()
	// Nothing can be written where a directory is in the way.
	if err := os.MkdirAll(filepath.Join(f.rec.records.dir, "aaaa-1.json"+halfWritten, "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	f.machine.done()
	f.runLoop(t, func(o *Options) { o.Orphans = OrphansUnmount }, func(t *testing.T, l *loop) {
		l.Replace(nil)
		wait.Advance(10 * time.Minute)
		hooks := 0
		for _, line := range f.machine.done() {
			if line == "hook post-deactivate" {
				hooks++
			}
		}
		if len(f.machine.table) != 0 || hooks != 1 {
			t.Errorf("the hook ran %d times, table %+v", hooks, f.machine.table)
		}
	})
}

func TestSuccessorTakesOver(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			f := newFixture(t, typ)
			f.machine.missing = []string{testPath}
			f.machine.shows = "192.0.2.1@tcp:/job7fs" // so that only the record can tell
			f.reconcile()
			f.again("bbbb-2")
			f.machine.missing = nil
			var released []string
			f.rec.released = func(uid string) { released = append(released, uid) }
			if res := f.reconcile(); res.failed {
				t.Fatal(describe(&f.server.object().Status))
			}
			if old, err := f.rec.records.Load("aaaa-1"); old != nil || err != nil {
				t.Errorf("the old record is still there: %+v %v", old, err)
			}
			f.expect("released", released, []string{"aaaa-1"})
			f.expect("directories to remove", f.work.record.Mounts[0].Created, []string{testPath})
			// Now there is nothing to undo any more.
			f.machine.done()
			if err := f.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
				t.Error(err)
			}
			f.expect("undone although taken over", f.machine.done(), nil)
		})
	}
}

// An object that exists shares the mount of another and takes nothing from it; what
// belongs to other storage is refused while it is mounted.
func TestSuccessorLeavesOthersAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*fixture)
		fails  bool
	}{
		"alive":         {func(f *fixture) { f.rec.registry.alive = func(string, string) bool { return true } }, false},
		"other storage": {func(f *fixture) { f.server.cm.Spec.Mounts[0].Device.DeviceReference.Data++ }, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			f.again("bbbb-2")
			c.change(f)
			if res := f.reconcile(); res.failed != c.fails || (res.blocked != nil) != c.fails {
				t.Errorf("%+v %s", res, describe(&f.server.object().Status))
			}
			if old, err := f.rec.records.Load("aaaa-1"); old == nil || old.Mounts[0].Unmounted {
				t.Errorf("taken: %+v %v", old, err)
			}
		})
	}
}

// What a deleted object has left at a path does not count when it is not
// mounted any more.
func TestStaleLeftoverHoldsUpNothing(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.table = nil // unmounted by the administrator
	f.again("bbbb-2")
	f.server.cm.Spec.Mounts[0].MountPath = testPath + "/below"
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	if old, err := f.rec.records.Load("aaaa-1"); old != nil || err != nil {
		t.Errorf("the old record is still there: %+v %v", old, err)
	}
}

// While a record is undone its successor waits; afterwards it mounts again.
func TestSuccessorWaitsForUndo(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	plan := f.work.record.Mounts[0].Plan
	f.again("bbbb-2")
	done, err := f.rec.registry.sequence(t.Context(), &plan)
	if err != nil {
		t.Fatal(err)
	}
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	f.rec.reconcile(t.Context(), waits, f.work, f.server.object())
	f.expect("steps while the record is undone", f.machine.done(), nil)
	done()
	f.rec.registry.alive = func(string, string) bool { return false } // as if the successor had not come yet
	if err := f.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
		t.Fatal(err)
	}
	if f.machine.mounted(testPath) {
		t.Fatal("still mounted")
	}
	if f.reconcile(); !f.machine.mounted(testPath) || !f.server.object().Status.AllReady {
		t.Error(describe(&f.server.object().Status))
	}
}

// A leftover that another object uses is forgotten, not unmounted.
func TestUndoOfWhatIsUsed(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	record := f.work.record.clone()
	f.again("bbbb-2")
	f.reconcile() // takes over
	if err := f.rec.save(record); err != nil {
		t.Fatal(err) // as after a crash between the two records
	}
	f.machine.done()
	if err := f.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
		t.Fatal(err)
	}
	f.expect("effects", f.machine.done(), nil)
	if old, err := f.rec.records.Load("aaaa-1"); old != nil || err != nil {
		t.Errorf("the old record is still there: %+v %v", old, err)
	}
}

func TestLoopOrphans(t *testing.T) {
	for _, policy := range []OrphanPolicy{OrphansReport, OrphansUnmount} {
		t.Run(string(policy), func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			f.runLoop(t, func(o *Options) { o.Orphans = policy }, func(t *testing.T, l *loop) {
				l.Replace(nil)
				synctest.Wait()
				if got := f.machine.mounted(testPath); got != (policy == OrphansReport) {
					t.Errorf("mounted: %v", got)
				}
				if got := l.lines[len(l.lines)-1]; strings.Contains(got, "1 orphaned") != (policy == OrphansReport) {
					t.Errorf("status line %q", got)
				}
			})
		})
	}
}

// An orphan's commands are waited for like an object's.
func TestOrphanWaitsForCommands(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.done()
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.rec.undo(t.Context(), waits, f.work.record.UID); err != errInterrupted {
		t.Errorf("%v", err)
	}
	f.expect("steps", f.machine.done(), nil)
}
