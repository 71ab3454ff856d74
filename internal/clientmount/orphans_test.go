package clientmount

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// An object that was replaced during an attempt leaves an orphan like any deleted object.
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

// An orphan whose record cannot be written or removed is unmounted only once.
func TestOrphanWithUnwritableRecord(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.reconcile()
	// A directory with the name of the temporary file prevents writes.
	if err := os.MkdirAll(filepath.Join(f.rec.records.dir, "aaaa-1.json"+tempSuffix, "full"), 0o700); err != nil {
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

// The holders of an orphan are logged once, and again only when they change.
func TestBusyOrphanIsLoggedOnce(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.fail["umount"] = errTargetBusy
	var log bytes.Buffer
	f.runLoop(t, func(o *Options) { o.Orphans, o.Log = OrphansUnmount, slog.New(slog.NewTextHandler(&log, nil)) }, func(t *testing.T, l *loop) {
		logged := func(want int) {
			t.Helper()
			wait.Advance(10 * time.Minute)
			if got := strings.Count(log.String(), "mount is in use"); got != want {
				t.Errorf("logged %d times, want %d", got, want)
			}
		}
		l.Replace(nil)
		logged(1)
		if m := f.one(mountstate.Orphan); len(m.Holders) != 1 || m.Holders[0].PID != 4242 || m.Failure == nil || m.Failure.Kind != mountstate.FailureBusy {
			t.Errorf("%+v", m)
		}
		l.machine.mu.Lock()
		l.machine.holders = []node.Holder{{PID: 4243, UID: 1001, Command: "vim", Kind: "cwd", Path: testPath}}
		l.machine.mu.Unlock()
		logged(2)
	})
}

func TestSuccessorTakesOver(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			f := newFixture(t, typ)
			f.machine.missing = []string{testPath}
			f.machine.shows = "192.0.2.1@tcp:/job7fs" // so that only the record identifies the mount
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
			// Now there is nothing left to unmount.
			f.machine.done()
			if err := f.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
				t.Error(err)
			}
			f.expect("unmounted although taken over", f.machine.done(), nil)
		})
	}
}

// A mount of an existing object is shared, not taken over. A mount of other storage is a
// conflict while it is mounted.
func TestSuccessorTakesNothingElse(t *testing.T) {
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
				t.Errorf("taken over: %+v %v", old, err)
			}
		})
	}
}

// The record of a deleted object does not block a path at which nothing is mounted.
func TestStaleLeftoverDoesNotBlock(t *testing.T) {
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

// While the unmount of an orphan runs, its successor waits; then it mounts again.
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
	f.expect("steps of the unmount", f.machine.done(), nil)
	done()
	f.rec.registry.alive = func(string, string) bool { return false } // as if the successor did not exist yet
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

// An orphan whose mount another object uses is dropped, not unmounted.
func TestUndoOfUsedMount(t *testing.T) {
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

// Leftover commands of an orphan are waited for like those of an object.
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
