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
	b.rec.alive = func(*Record) bool { return false }
}

func TestSuccessorTakesOver(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.missing = []string{testPath}
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
}

// What belongs to an object that exists, or to other storage, is not taken.
func TestSuccessorLeavesOthersAlone(t *testing.T) {
	for name, change := range map[string]func(*bench){
		"alive":         func(b *bench) { b.rec.alive = func(*Record) bool { return true } },
		"other storage": func(b *bench) { b.server.cm.Spec.Mounts[0].Device.DeviceReference.Data++ },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			b.again("bbbb-2")
			change(b)
			b.reconcile()
			if old, err := b.rec.records.Load("aaaa-1"); old == nil || old.Mounts[0].Unmounted {
				t.Errorf("taken: %+v %v", old, err)
			}
		})
	}
}

// While a record is undone its successor waits; afterwards it mounts anew.
func TestSuccessorWaitsForUndo(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.again("bbbb-2")
	_, end, err := b.rec.beginUndo("aaaa-1")
	if err != nil {
		t.Fatal(err)
	}
	waits, cancel := context.WithCancel(t.Context())
	cancel()
	b.rec.reconcile(t.Context(), waits, b.stop.Load, b.work, b.server.object())
	b.expect("steps while the record is undone", b.machine.done(), nil)
	end()
	if err := b.rec.undo(t.Context(), t.Context(), "aaaa-1"); err != nil {
		t.Fatal(err)
	}
	if b.reconcile(); !b.machine.mounted(testPath) || !b.server.object().Status.AllReady {
		t.Error(describe(&b.server.object().Status))
	}
}
