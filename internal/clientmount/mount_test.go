package clientmount

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// While an obsolete mount cannot be unmounted, nothing is mounted where it would hide the
// obsolete mount, be hidden by it, or be confused with it.
func TestObsoleteMountBlocksPath(t *testing.T) {
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
			f := newFixture(t, c.typ)
			f.edit(c.from)
			f.reconcile()
			f.edit(c.to)
			f.machine.fail["umount"] = errors.New("target is busy")
			f.machine.done()
			if res := f.reconcile(); !res.failed {
				t.Error("no failure")
			}
			if st := f.server.object().Status; st.Mounts[0].Ready || st.Error == nil || !strings.Contains(st.Error.DebugMessage, "target is busy") {
				t.Errorf("status %s", describe(&st))
			}
			if len(f.machine.table) != 1 || !f.machine.mounted(c.left) {
				t.Errorf("table %+v", f.machine.table)
			}
			delete(f.machine.fail, "umount")
			if res := f.reconcile(); res.failed || len(f.machine.table) != 1 {
				t.Errorf("%s, table %+v", describe(&f.server.object().Status), f.machine.table)
			}
			f.want(dws.Unmounted)
			if res := f.reconcile(); res.failed || len(f.machine.table) != 0 {
				t.Errorf("%s, table %+v", describe(&f.server.object().Status), f.machine.table)
			}
		})
	}
}

// A mount at a path that the record does not list is a new one, even if the
// object reported that the old one was ready: its hooks run.
func TestHooksOfChangedPath(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.done()
	f.server.written()
	f.edit(at("/mnt/nnf/elsewhere"))
	f.reconcile()
	if log := f.machine.done(); !slices.Contains(log, "hook pre-activate f9Tk") || !slices.Contains(log, "hook post-mount") {
		t.Errorf("no hooks: %q", log)
	}
}

// An entry that was changed together with the desired state is not unmounted.
func TestUnmountOfChangedDevice(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.done()
	f.edit(func(cm *dws.ClientMount) {
		otherVolume(cm)
		at("/mnt/nnf/elsewhere")(cm)
		cm.Spec.DesiredState = dws.Unmounted
	})
	if res := f.reconcile(); res.failed || f.machine.mounted(testPath) {
		t.Error(describe(&f.server.object().Status))
	}
	hooks := 0
	for _, line := range f.machine.done() {
		if line == "hook post-deactivate" {
			hooks++
		}
	}
	if hooks != 1 {
		t.Errorf("hooks ran for %d mounts, expected one", hooks)
	}
}

// If two mounts of one volume are removed from the object, the volume is deactivated with
// the last one.
func TestObsoleteVolume(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.reconcile()
	f.edit(func(cm *dws.ClientMount) {
		lustre := testObject(dws.TypeLustre)
		cm.Spec.Mounts = lustre.Spec.Mounts
		cm.Spec.Mounts[0].MountPath = "/mnt/nnf/lustre"
	})
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	if f.machine.lvs[testVG+"/"+testLV] {
		t.Error("the volume is still active")
	}
}

// An unmount that was completed is not repeated after the attempt was interrupted.
func TestObsoleteInterrupted(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.reconcile()
	f.edit(func(cm *dws.ClientMount) {
		cm.Spec.Mounts = cm.Spec.Mounts[:1]
		cm.Spec.Mounts[0].MountPath = "/mnt/nnf/third"
	})
	f.machine.done()
	waits, cancel := context.WithCancel(t.Context())
	undone := 0
	f.machine.onLine = func(line string) {
		if line != "hook pre-unmount" {
			return
		}
		if undone++; undone == 2 {
			cancel() // the second is unmounted, the unmount of the first has started
		}
	}
	for range 2 {
		f.rec.reconcile(t.Context(), waits, f.work, f.server.object())
		waits = t.Context()
	}
	if undone != 3 || len(f.machine.table) != 1 {
		t.Errorf("unmounts started %d times, expected one more than the number of mounts; table %+v", undone, f.machine.table)
	}
}

// A mount that fails repeatedly does not reset the ready state of the other mounts.
func TestStatusWritesOfHalfUnmounted(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.edit(twoMounts)
	f.reconcile()
	f.want(dws.Unmounted)
	f.reconcile()
	f.edit(func(cm *dws.ClientMount) {
		cm.Spec.DesiredState = dws.Mounted
		cm.Spec.Mounts[1].Device.DeviceReference = nil // cannot be planned
	})
	f.reconcile()
	f.server.written()
	for range 3 {
		f.reconcile()
	}
	f.expect("status writes of retries", f.server.written(), nil)
}

// Hooks run again after a failure, never after success is recorded.
func TestHooksAtLeastOnce(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.fail["mount -t xfs"] = &node.CommandError{Line: "mount -t xfs", Stderr: "wrong fs type", Err: node.ExitStatus(32)}
	if res := f.reconcile(); !res.retry || !res.failed || res.permanent {
		t.Fatalf("%+v", res)
	}
	st := f.server.object().Status
	want := "mount/unmount failed: unable to mount file system: could not mount file system " + testPath + ": command: mount -t xfs - stderr: wrong fs type - stdout:  - error: exit status 32"
	if st.Error == nil || st.Error.DebugMessage != want || st.Error.Severity != dws.Major || st.Mounts[0].Ready || st.AllReady {
		t.Fatalf("status %s", describe(&st))
	}
	delete(f.machine.fail, "mount -t xfs")
	f.machine.done()
	f.reconcile()
	if got := f.machine.done(); got[0] != "hook pre-activate f9Tk" {
		t.Errorf("the whole sequence must be repeated: %q", got)
	}
	f.restart(f.rec.records)
	f.reconcile()
	f.expect("restart of the daemon", f.machine.done(), []string{"lvs " + testVG})
}

// Mounts are made in order and unmounted in reverse order; after a failure the others are
// still tried, and the first error is reported.
func TestSeveralMounts(t *testing.T) {
	f := newFixture(t, dws.TypeLustre)
	for i, path := range []string{"/mnt/nnf/b", "/mnt/nnf/c"} {
		m := f.server.cm.Spec.Mounts[0]
		m.MountPath = path
		m.Device.Lustre = &dws.LustreDevice{FileSystemName: "fs" + string(rune('b'+i)), MGSAddresses: "10.1.1.2@tcp"}
		f.server.cm.Spec.Mounts = append(f.server.cm.Spec.Mounts, m)
	}
	f.machine.fail["mount -t lustre 10.1.1.2@tcp:/fsb"] = errors.New("no route to the server")
	f.reconcile()
	st := f.server.object().Status
	if st.Mounts[0].Ready != true || st.Mounts[1].Ready || !st.Mounts[2].Ready || !strings.Contains(st.Error.DebugMessage, "no route") {
		t.Fatalf("status %s", describe(&st))
	}
	delete(f.machine.fail, "mount -t lustre 10.1.1.2@tcp:/fsb")
	f.reconcile()
	f.machine.done()
	f.want(dws.Unmounted)
	f.reconcile()
	var order []string
	for _, line := range f.machine.done() {
		if p, ok := strings.CutPrefix(line, "umount "); ok {
			order = append(order, p)
		}
	}
	f.expect("unmount order", order, []string{"/mnt/nnf/c", "/mnt/nnf/b", testPath})
}

// A ready mount stays ready when its profile is deleted, but not without a record.
func TestReadyMountWithoutProfile(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.server.written()
	f.server.profile = nil
	f.restart(f.rec.records)
	if res := f.reconcile(); res.failed {
		t.Fatalf("%+v %s", res, describe(&f.server.object().Status))
	}
	f.expect("writes", f.server.written(), nil)
	if err := f.rec.records.Remove("aaaa-1"); err != nil {
		t.Fatal(err)
	}
	f.restart(f.rec.records)
	if res := f.reconcile(); !res.failed {
		t.Fatal("mounted without a profile and a record")
	}
	if st := f.server.object().Status; st.Error.Severity != dws.Major || st.Mounts[0].Ready {
		t.Errorf("status %s", describe(&st))
	}
}

// After a change of the spec, the old mount is unmounted before the new one is made.
func TestChangedPath(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.server.cm.Spec.Mounts[0].MountPath = "/mnt/nnf/elsewhere"
	f.server.cm.Generation++
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	if f.machine.mounted(testPath) || !f.machine.mounted("/mnt/nnf/elsewhere") {
		t.Fatalf("table %+v", f.machine.table)
	}
}

// If the desired state changes back during an unmount, ready:false is published before the
// entries are mounted again.
func TestMountedAgainDuringUnmount(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.server.written()
	f.want(dws.Unmounted)
	f.machine.fail["umount"] = errors.New("no")
	f.server.fail["status"] = errors.New("API server away")
	f.reconcile()
	delete(f.machine.fail, "umount")
	delete(f.server.fail, "status")
	f.want(dws.Mounted)
	f.machine.done()
	f.reconcile()
	f.expect("writes", f.server.written(), []string{"status [{mounted false}] false", "status [{mounted true}] true"})
	if got := f.machine.done(); got[0] != "hook pre-activate f9Tk" {
		t.Errorf("the hooks must run again: %q", got)
	}
}

// If the unmount was completed but its status was not written, a new mount runs the hooks,
// because the file system is no longer mounted.
func TestMountedAgainAfterUnmount(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.want(dws.Unmounted)
	f.server.fail["status"] = errors.New("API server away")
	f.reconcile()
	if f.machine.mounted(testPath) {
		t.Fatal("still mounted")
	}
	delete(f.server.fail, "status")
	f.server.written()
	f.machine.done()
	f.want(dws.Mounted)
	f.restart(f.rec.records)
	f.reconcile()
	if got := f.machine.done(); got[0] != "hook pre-activate f9Tk" || !f.machine.mounted(testPath) {
		t.Errorf("%q", got)
	}
	f.expect("writes", f.server.written(), []string{"status [{mounted false}] false", "status [{mounted true}] true"})
}

// Links of root are resolved once; after that the resolved path is in the record.
func TestLinkInThePath(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.link = [2]string{"/mnt/", "/var/mnt/"}
	real := "/var" + testPath
	if res := f.reconcile(); res.failed || !f.machine.mounted(real) {
		t.Fatalf("%s, table %v", describe(&f.server.object().Status), f.machine.table)
	}
	f.machine.fail["resolve"] = errors.New("a server that does not answer")
	f.restart(f.rec.records)
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	f.delete()
	if res := f.reconcile(); !res.finished || f.machine.mounted(real) {
		t.Errorf("%+v", res)
	}
}

// A mount that was made before a change of mount.roots stays ready, and can be unmounted.
func TestRootsChanged(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.restart(f.rec.records)
	f.rec.plan.Roots = []string{"/elsewhere"}
	if res := f.reconcile(); res.failed {
		t.Fatal(describe(&f.server.object().Status))
	}
	fresh := f.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf/other")(cm) })
	fresh.rec.plan = f.rec.plan
	if res := fresh.reconcile(); !res.permanent {
		t.Errorf("a new mount outside the roots: %+v", res)
	}
	f.delete()
	if res := f.reconcile(); !res.finished || f.machine.mounted(testPath) {
		t.Errorf("%+v", res)
	}
}
