package clientmount

import (
	"context"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// again makes the object anew under its old name, while no daemon runs.
func (b *bench) again(uid types.UID) {
	b.server.cm = testObject(b.server.cm.Spec.Mounts[0].Type)
	b.server.cm.UID = uid
	b.machine.done()
	b.restart(b.rec.records)
	b.rec.registry.alive = func(uid, _ string) bool { return uid == string(b.server.cm.UID) }
}

func TestSuccessorTakesOver(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			b := newBench(t, typ)
			b.machine.missing = []string{testPath}
			b.machine.shows = "192.0.2.1@tcp:/job7fs" // so that only the record can tell
			b.reconcile()
			b.again("bbbb-2")
			b.machine.missing = nil
			var released []string
			b.rec.released = func(uid string) { released = append(released, uid) }
			if res := b.reconcile(); res.failed {
				t.Fatal(describe(&b.server.object().Status))
			}
			if old, err := b.rec.records.Load("aaaa-1"); old != nil || err != nil {
				t.Errorf("the old record is still there: %+v %v", old, err)
			}
			b.expect("released", released, []string{"aaaa-1"})
			b.expect("directories to remove", b.work.record.Mounts[0].Created, []string{testPath})
			// Now there is nothing to undo any more.
			b.machine.done()
			if err := b.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
				t.Error(err)
			}
			b.expect("undone although taken over", b.machine.done(), nil)
		})
	}
}

// A living object shares the mount of another and takes nothing from it; what
// belongs to other storage is refused while it is mounted.
func TestSuccessorLeavesOthersAlone(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*bench)
		fails  bool
	}{
		"alive":         {func(b *bench) { b.rec.registry.alive = func(string, string) bool { return true } }, false},
		"other storage": {func(b *bench) { b.server.cm.Spec.Mounts[0].Device.DeviceReference.Data++ }, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			b.again("bbbb-2")
			c.change(b)
			if res := b.reconcile(); res.failed != c.fails || (res.blocked != nil) != c.fails {
				t.Errorf("%+v %s", res, describe(&b.server.object().Status))
			}
			if old, err := b.rec.records.Load("aaaa-1"); old == nil || old.Mounts[0].Unmounted {
				t.Errorf("taken: %+v %v", old, err)
			}
		})
	}
}

// What a deleted object has left at a path does not count when it is not
// mounted any more.
func TestStaleLeftoverHoldsUpNothing(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.table = nil // unmounted by the administrator
	b.again("bbbb-2")
	b.server.cm.Spec.Mounts[0].MountPath = testPath + "/below"
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	if old, err := b.rec.records.Load("aaaa-1"); old != nil || err != nil {
		t.Errorf("the old record is still there: %+v %v", old, err)
	}
}

// While a record is undone its successor waits; afterwards it mounts again.
func TestSuccessorWaitsForUndo(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	plan := b.work.record.Mounts[0].Plan
	b.again("bbbb-2")
	done, err := b.rec.registry.sequence(t.Context(), &plan)
	if err != nil {
		t.Fatal(err)
	}
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	b.rec.reconcile(t.Context(), waits, b.work, b.server.object())
	b.expect("steps while the record is undone", b.machine.done(), nil)
	done()
	b.rec.registry.alive = func(string, string) bool { return false } // as if the successor had not come yet
	if err := b.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
		t.Fatal(err)
	}
	if b.machine.mounted(testPath) {
		t.Fatal("still mounted")
	}
	if b.reconcile(); !b.machine.mounted(testPath) || !b.server.object().Status.AllReady {
		t.Error(describe(&b.server.object().Status))
	}
}

// A leftover that a living object uses is forgotten, not unmounted.
func TestUndoOfWhatIsUsed(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	record := b.work.record.clone()
	b.again("bbbb-2")
	b.reconcile() // takes over
	if err := b.rec.save(record); err != nil {
		t.Fatal(err) // as after a crash between the two records
	}
	b.machine.done()
	if err := b.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
		t.Fatal(err)
	}
	b.expect("effects", b.machine.done(), nil)
	if old, err := b.rec.records.Load("aaaa-1"); old != nil || err != nil {
		t.Errorf("the old record is still there: %+v %v", old, err)
	}
}
