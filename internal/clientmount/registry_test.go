package clientmount

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
)

// Two objects with the same volume at the same path share one mount, which the last one
// to unmount removes.
func TestSharedMount(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		for _, firstLeaves := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first leaves first %t", typ, firstLeaves), func(t *testing.T) {
				a := newFixture(t, typ)
				a.machine.missing = []string{testPath}
				a.reconcile()
				a.machine.missing = nil
				b := a.beside("job8", "bbbb-2", nil)
				a.machine.done()
				if res := b.reconcile(); res.failed {
					t.Fatal(describe(&b.server.object().Status))
				}
				for _, line := range effects(a.machine.done()) {
					if !strings.HasPrefix(line, "hook") && !strings.HasPrefix(line, "vgchange") {
						t.Errorf("the second mount ran %q", line)
					}
				}
				leaves, stays := a, b
				if !firstLeaves {
					leaves, stays = b, a
				}
				leaves.want(dws.Unmounted)
				if res := leaves.reconcile(); res.failed || !leaves.server.object().Status.AllReady {
					t.Fatal(describe(&leaves.server.object().Status))
				}
				leaves.delete()
				if res := leaves.reconcile(); !res.finished {
					t.Fatalf("%+v", res)
				}
				a.expect("effects of the first unmount", effects(a.machine.done()), nil)
				if res := stays.reconcile(); res.failed || !a.machine.mounted(testPath) {
					t.Fatal(describe(&stays.server.object().Status))
				}
				a.machine.done()
				stays.delete()
				if res := stays.reconcile(); !res.finished || a.machine.mounted(testPath) || a.machine.lvs[testVG+"/"+testLV] {
					t.Fatalf("%+v %s", res, describe(&stays.server.object().Status))
				}
				if log := a.machine.done(); !slices.Contains(log, "remove "+testPath+" ["+testPath+"]") {
					t.Errorf("the target that the first object created was not removed: %q", log)
				}
			})
		}
	}
}

// The volume stays active as long as it is mounted at another path.
func TestSharedVolume(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	b := a.beside("job8", "bbbb-2", at("/mnt/nnf/other"))
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	a.machine.done()
	a.want(dws.Unmounted)
	a.reconcile()
	a.expect("the first one", effects(a.machine.done()), []string{"hook pre-unmount", "umount " + testPath, "remove " + testPath + " [" + testPath + "]"})
	b.want(dws.Unmounted)
	b.reconcile()
	a.expect("the last one", effects(a.machine.done()), []string{
		"hook pre-unmount", "umount /mnt/nnf/other", "remove /mnt/nnf/other [/mnt/nnf/other]", "lvchange --activate n " + testVG + "/" + testLV, "hook post-deactivate",
	})
}

// A path that another object uses with another volume, or a path above or below it, is
// refused without any effect. The refused object can be deleted immediately.
func TestConflict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*dws.ClientMount)
		text   string
	}{
		"same path":  {otherVolume, "mount path " + testPath + " is in use by ClientMount default-job7-0-computes with another volume (lvm:" + testVG + "/lv-3)"},
		"path above": {at("/mnt/nnf"), "mount path /mnt/nnf would hide " + testPath + ", where ClientMount default-job7-0-computes has mounted lvm:"},
		"path below": {at(testPath + "/sub"), "mount path " + testPath + "/sub is below " + testPath + ", where ClientMount default-job7-0-computes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newMounted(t, dws.TypeXFS)
			freed := 0
			a.rec.registry.freed = func() { freed++ }
			b := a.beside("job8", "bbbb-2", c.change)
			a.machine.done()
			res := b.reconcile()
			st := b.server.object().Status
			if res.blocked == nil || !res.failed || st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, c.text) {
				t.Fatalf("%+v, status %s", res, describe(&st))
			}
			a.expect("effects of the refused object", a.machine.done(), nil)
			refused := a.beside("job9", "cccc-3", c.change)
			refused.reconcile()
			refused.delete()
			if res := refused.reconcile(); !res.finished || len(refused.server.object().Finalizers) > 0 {
				t.Fatalf("%+v", res)
			}
			if log := effects(a.machine.done()); log != nil || !a.machine.mounted(testPath) {
				t.Fatalf("effects of the deletion: %q", log)
			}
			a.delete()
			a.reconcile()
			if freed == 0 {
				t.Error("freed was not called when the path became free")
			}
			if res := b.reconcile(); res.blocked != nil {
				t.Errorf("still refused: %s", describe(&b.server.object().Status))
			}
		})
	}
}

// An object whose new path is refused gives up its old one: two objects can exchange their paths.
func TestExchangedPaths(t *testing.T) {
	const other = "/mnt/nnf/other"
	for name, restart := range map[string]bool{"the same daemon": false, "after a restart": true} {
		t.Run(name, func(t *testing.T) {
			a := newMounted(t, dws.TypeLustre)
			b := a.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Device.Lustre.FileSystemName = "job8fs"; at(other)(cm) })
			if res := b.reconcile(); res.failed {
				t.Fatal(describe(&b.server.object().Status))
			}
			a.edit(at(other))
			b.edit(at(testPath))
			if restart {
				a.restart(a.rec.records)
				b.rec = a.rec
			}
			if res := a.reconcile(); res.blocked == nil || a.machine.mounted(testPath) {
				t.Fatalf("%+v, table %+v, status %s", res, a.machine.table, describe(&a.server.object().Status))
			}
			if st := a.server.object().Status; st.Mounts[0].Ready || !strings.Contains(st.Error.DebugMessage, other+" is in use by ClientMount") {
				t.Errorf("status %s", describe(&st))
			}
			for _, f := range []*fixture{b, a} {
				if res := f.reconcile(); res.failed || res.blocked != nil {
					t.Errorf("%+v, status %s", res, describe(&f.server.object().Status))
				}
			}
			if len(a.machine.table) != 2 || !a.machine.mounted(testPath) || !a.machine.mounted(other) {
				t.Errorf("table %+v", a.machine.table)
			}
		})
	}
}

// A sibling path is not a conflict.
func TestNoConflict(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	b := a.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at(testPath + "0")(cm) })
	b.machine.lvs[testVG+"/lv-4"] = true
	if res := b.reconcile(); res.blocked != nil {
		t.Errorf("%+v %s", res, describe(&b.server.object().Status))
	}
}

// After a restart the registry contains the claims of the records before any attempt.
func TestRegistryFromRecords(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	a.restart(a.rec.records)
	b := a.beside("job8", "bbbb-2", at("/mnt/nnf"))
	if res := b.reconcile(); res.blocked == nil {
		t.Errorf("%+v", res)
	}
}

// An object that has claimed its path and waits for the lock of the volume inherits the
// recorded state of the object that unmounts.
func TestHandOver(t *testing.T) {
	a := newFixture(t, dws.TypeLustre)
	a.machine.missing = []string{testPath}
	a.machine.shows = "192.0.2.1@tcp:/job7fs" // so that only the record identifies the mount
	a.reconcile()
	b := a.beside("job8", "bbbb-2", nil)
	plan := a.work.record.Mounts[0].Plan
	rec := newRecord(b.server.cm, time.Now())
	rec.Mounts = []MountRecord{{Plan: plan}}
	b.rec.registry.keep(rec.UID, rec)
	a.delete()
	a.reconcile()
	if !a.machine.mounted(testPath) {
		t.Fatal("unmounted although another object has claimed it")
	}
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	b.delete()
	b.reconcile()
	if a.machine.mounted(testPath) || !slices.Contains(a.machine.done(), "remove "+testPath+" ["+testPath+"]") {
		t.Error("the mount or its target remains")
	}
}

// An object that has released a mount no longer uses it, even if its record still lists
// the mount: of two objects that unmount concurrently, the last one removes the mount.
func TestConcurrentUnmounts(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	b := a.beside("job8", "bbbb-2", nil)
	b.reconcile()
	for _, leaves := range []*fixture{a, b} {
		m := &leaves.work.record.Mounts[0]
		plan := m.Plan
		if _, _, err := leaves.attempt().unmountOne(&plan, m); err != nil {
			t.Fatal(err)
		}
	}
	if a.machine.mounted(testPath) || a.machine.lvs[testVG+"/"+testLV] {
		t.Error("both objects are unmounted and the mount is still there")
	}
}

// An object that has only reserved a path does not keep the mount, because it may never
// use it.
func TestReservedIsNotUsed(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	b := a.beside("job8", "bbbb-2", nil)
	b.server.fail["finalizer"] = errors.New("API server away")
	b.reconcile()
	a.want(dws.Unmounted)
	if a.reconcile(); a.machine.mounted(testPath) {
		t.Fatal("the mount was left to an object without a record")
	}
	delete(b.server.fail, "finalizer")
	if res := b.reconcile(); res.failed || !a.machine.mounted(testPath) {
		t.Error(describe(&b.server.object().Status))
	}
}

// A reserved path becomes free if the object changes back, or is refused, before anything
// was mounted.
func TestReservedPathIsReleased(t *testing.T) {
	for name, change := range map[string]func(*dws.ClientMount){
		"unmounted": func(cm *dws.ClientMount) { cm.Spec.DesiredState = dws.Unmounted },
		"refused":   func(cm *dws.ClientMount) { cm.Spec.Node = "another" },
	} {
		t.Run(name, func(t *testing.T) {
			a := newFixture(t, dws.TypeXFS)
			a.server.fail["finalizer"] = errors.New("API server away")
			a.reconcile()
			delete(a.server.fail, "finalizer")
			a.edit(change)
			a.reconcile()
			b := a.beside("job8", "bbbb-2", otherVolume)
			if res := b.reconcile(); res.blocked != nil || b.work.record == nil {
				t.Errorf("still blocked: %s", describe(&b.server.object().Status))
			}
		})
	}
}

// Repeated hand-overs leave one claim with the remaining object.
func TestRepeatedHandOver(t *testing.T) {
	a := newMounted(t, dws.TypeXFS)
	m := a.work.record.Mounts[0]
	for range 5 {
		a.rec.registry.handOver("another", &m)
	}
	if n := len(a.rec.registry.users["aaaa-1"].handed); n != 1 {
		t.Errorf("%d handed claims for one mount", n)
	}
}

// While an edited object replaces the volume at its path, the path is briefly free.
// Another object that claims it then keeps it.
func TestPathTakenDuringExchange(t *testing.T) {
	a := newMounted(t, dws.TypeLustre)
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
