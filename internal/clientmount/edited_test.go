package clientmount

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// edit changes the object as a user would.
func (b *bench) edit(change func(*dws.ClientMount)) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	change(b.server.cm)
	b.server.cm.Generation++
}

// As long as an old mount that is not asked for any more cannot be unmounted,
// nothing is mounted where it would be hidden, or be taken for the new one.
func TestObsoleteMountInTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		typ      string
		from, to func(*dws.ClientMount)
		left     string // still mounted
	}{
		"other Lustre file system at the path": {dws.TypeLustre, func(*dws.ClientMount) {}, func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Device.Lustre.FileSystemName = "job8fs" }, testPath},
		"path above":                           {dws.TypeXFS, at(testPath + "/sub"), at(testPath), testPath + "/sub"},
		"path below":                           {dws.TypeXFS, at(testPath), at(testPath + "/sub"), testPath},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, c.typ)
			b.edit(c.from)
			b.reconcile()
			b.edit(c.to)
			b.machine.fail["umount"] = errors.New("target is busy")
			b.machine.done()
			if res := b.reconcile(); !res.failed {
				t.Error("no failure")
			}
			if st := b.server.object().Status; st.Mounts[0].Ready || st.Error == nil || !strings.Contains(st.Error.DebugMessage, "target is busy") {
				t.Errorf("status %s", describe(&st))
			}
			if len(b.machine.table) != 1 || !b.machine.mounted(c.left) {
				t.Errorf("table %+v", b.machine.table)
			}
			delete(b.machine.fail, "umount")
			if res := b.reconcile(); res.failed || len(b.machine.table) != 1 {
				t.Errorf("%s, table %+v", describe(&b.server.object().Status), b.machine.table)
			}
			b.want(dws.Unmounted)
			if res := b.reconcile(); res.failed || len(b.machine.table) != 0 {
				t.Errorf("%s, table %+v", describe(&b.server.object().Status), b.machine.table)
			}
		})
	}
}

// A mount at a path that the record does not list is a new one, even if the
// object said that the old one was ready: its hooks run.
func TestHooksOfChangedPath(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.done()
	b.server.written()
	b.edit(at("/mnt/nnf/elsewhere"))
	b.reconcile()
	if log := b.machine.done(); !slices.Contains(log, "hook pre-activate f9Tk") || !slices.Contains(log, "hook post-mount") {
		t.Errorf("no hooks: %q", log)
	}
}

// Nor is anything undone for an entry that was changed together with the state.
func TestUnmountOfChangedDevice(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.done()
	b.edit(func(cm *dws.ClientMount) {
		otherVolume(cm)
		at("/mnt/nnf/elsewhere")(cm)
		cm.Spec.DesiredState = dws.Unmounted
	})
	if res := b.reconcile(); res.failed || b.machine.mounted(testPath) {
		t.Error(describe(&b.server.object().Status))
	}
	hooks := 0
	for _, line := range b.machine.done() {
		if line == "hook post-deactivate" {
			hooks++
		}
	}
	if hooks != 1 {
		t.Errorf("hooks ran for %d mounts, expected one", hooks)
	}
}

func twoMounts(cm *dws.ClientMount) {
	second := cm.Spec.Mounts[0]
	second.MountPath = "/mnt/nnf/second"
	cm.Spec.Mounts = append(cm.Spec.Mounts, second)
}

// Two mounts of one volume are not asked for any more: the volume goes with the
// last of them.
func TestObsoleteVolume(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.edit(twoMounts)
	b.reconcile()
	b.edit(func(cm *dws.ClientMount) {
		lustre := testObject(dws.TypeLustre)
		cm.Spec.Mounts = lustre.Spec.Mounts
		cm.Spec.Mounts[0].MountPath = "/mnt/nnf/lustre"
	})
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	if b.machine.lvs[testVG+"/"+testLV] {
		t.Error("the volume is still active")
	}
}

// What was undone stays undone when the attempt is interrupted afterwards.
func TestObsoleteInterrupted(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.edit(twoMounts)
	b.reconcile()
	b.edit(func(cm *dws.ClientMount) {
		cm.Spec.Mounts = cm.Spec.Mounts[:1]
		cm.Spec.Mounts[0].MountPath = "/mnt/nnf/third"
	})
	b.machine.done()
	waits, cancel := context.WithCancel(t.Context())
	undone := 0
	b.machine.onLine = func(line string) {
		if line != "hook pre-unmount" {
			return
		}
		if undone++; undone == 2 {
			cancel() // the second is undone, the first has begun
		}
	}
	for range 2 {
		b.rec.reconcile(t.Context(), waits, b.work, b.server.object())
		waits = t.Context()
	}
	if undone != 3 || len(b.machine.table) != 1 {
		t.Errorf("unmounts began %d times, expected once more than there are mounts; table %+v", undone, b.machine.table)
	}
}

// A mount that fails for long does not make those beside it look unready again
// and again.
func TestStatusWritesOfHalfUnmounted(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.edit(twoMounts)
	b.reconcile()
	b.want(dws.Unmounted)
	b.reconcile()
	b.edit(func(cm *dws.ClientMount) {
		cm.Spec.DesiredState = dws.Mounted
		cm.Spec.Mounts[1].Device.DeviceReference = nil // cannot be planned
	})
	b.reconcile()
	b.server.written()
	for range 3 {
		b.reconcile()
	}
	b.expect("writes of retries", b.server.written(), nil)
}
