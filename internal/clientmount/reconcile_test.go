package clientmount

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// A whole life costs four writes, runs each hook once and leaves nothing.
func TestLife(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	if res := b.reconcile(); res != (result{}) {
		t.Fatalf("mount: %+v", res)
	}
	b.expect("mount", b.machine.done(), []string{
		"hook pre-activate f9Tk", "lvs " + testVG, "lvchange --activate y " + testVG + "/" + testLV,
		"mkdir " + testPath, "mount -t xfs " + testDevice + " " + testPath, "hook post-mount",
	})
	b.expect("writes", b.server.written(), []string{"finalizers [" + api.FinalizerClientMount + "]", "status [{mounted true}] true"})

	if res := b.reconcile(); res != (result{}) {
		t.Fatalf("again: %+v", res)
	}
	b.expect("a second pass looks but does nothing", b.machine.done(), []string{"lvs " + testVG})
	b.expect("and writes nothing", b.server.written(), nil)

	b.want(dws.Unmounted)
	b.reconcile()
	b.expect("unmount", b.machine.done(), []string{
		"hook pre-unmount", "umount " + testPath, "remove " + testPath + " [" + testPath + "]",
		"lvs " + testVG, "lvchange --activate n " + testVG + "/" + testLV, "hook post-deactivate",
	})
	b.expect("writes", b.server.written(), []string{"status [{unmounted true}] true"})
	b.reconcile()
	b.expect("unmounted and ready is not touched again", b.machine.done(), nil)

	b.delete()
	if res := b.reconcile(); !res.finished {
		t.Fatalf("delete: %+v", res)
	}
	b.expect("delete", b.machine.done(), []string{"rescan nqn.2014-08.org.example:disk0"})
	b.expect("writes", b.server.written(), []string{"finalizers []"})
	if left, err := b.rec.records.List(); err != nil || len(left) > 0 {
		t.Fatalf("records left: %v %v", left, err)
	}
}

func TestDeleteWhileMounted(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			b := newBench(t, typ)
			b.reconcile()
			if !b.machine.mounted(testPath) {
				t.Fatalf("not mounted: %q", b.machine.done())
			}
			b.server.written()
			b.delete()
			if res := b.reconcile(); !res.finished || b.machine.mounted(testPath) {
				t.Fatalf("%+v, mounted %v, %q", res, b.machine.mounted(testPath), b.machine.done())
			}
			b.expect("one write", b.server.written(), []string{"finalizers []"})
			if b.machine.lvs[testVG+"/"+testLV] {
				t.Error("the logical volume is still active")
			}
		})
	}
}

// The profile may be gone before the unmount; the record has the commands.
func TestUnmountWithoutProfile(t *testing.T) {
	for name, forget := range map[string]bool{"by the record": false, "by computed names": true} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			b.machine.done()
			b.server.profile = nil
			if forget {
				if err := b.rec.records.Remove("aaaa-1"); err != nil {
					t.Fatal(err)
				}
			}
			b.restart(b.rec.records)
			b.want(dws.Unmounted)
			if res := b.reconcile(); res.failed {
				t.Fatalf("%+v %s", res, describe(&b.server.object().Status))
			}
			if b.machine.mounted(testPath) || b.machine.lvs[testVG+"/"+testLV] {
				t.Fatalf("left mounted or active: %q", b.machine.done())
			}
			ran := strings.Join(b.machine.done(), "\n")
			if hooks := strings.Contains(ran, "hook pre-unmount"); hooks == forget {
				t.Errorf("hooks ran: %v\n%s", hooks, ran)
			}
		})
	}
}

// Hooks run again after a failure, never after success is recorded.
func TestHooksAtLeastOnce(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.fail["mount -t xfs"] = &node.CommandError{Line: "mount -t xfs", Stderr: "wrong fs type", Err: node.ExitStatus(32)}
	if res := b.reconcile(); !res.retry || !res.failed || res.hopeless {
		t.Fatalf("%+v", res)
	}
	st := b.server.object().Status
	want := "mount/unmount failed: unable to mount file system: could not mount file system " + testPath + ": command: mount -t xfs - stderr: wrong fs type - stdout:  - error: exit status 32"
	if st.Error == nil || st.Error.DebugMessage != want || st.Error.Severity != dws.Major || st.Mounts[0].Ready || st.AllReady {
		t.Fatalf("status %s", describe(&st))
	}
	delete(b.machine.fail, "mount -t xfs")
	b.machine.done()
	b.reconcile()
	if got := b.machine.done(); got[0] != "hook pre-activate f9Tk" {
		t.Errorf("the whole sequence repeats: %q", got)
	}
	b.restart(b.rec.records)
	b.reconcile()
	b.expect("restart of the daemon", b.machine.done(), []string{"lvs " + testVG})
}

// A foreign mount at our path is neither used nor unmounted.
func TestForeignMount(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeRaw, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			b := newBench(t, typ)
			b.machine.table = []node.Mount{{ID: 7, Mountpoint: testPath, FSType: typ, Source: testDevice, Major: 8, Minor: 1, Root: "/other"}}
			b.reconcile()
			st := b.server.object().Status
			if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "unexpected mount at path "+testPath) {
				t.Fatalf("status %s", describe(&st))
			}
			b.want(dws.Unmounted)
			b.reconcile()
			if !b.machine.mounted(testPath) {
				t.Fatal("the foreign mount was unmounted")
			}
			for _, line := range b.machine.done() {
				if strings.HasPrefix(line, "umount") || strings.HasPrefix(line, "mount") {
					t.Errorf("ran %q", line)
				}
			}
		})
	}
}

func TestBusyNamesTheHolder(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.machine.fail["umount"] = &node.CommandError{Line: "umount " + testPath, Stderr: "umount: " + testPath + ": target is busy.\n", Err: node.ExitStatus(32)}
	b.want(dws.Unmounted)
	b.reconcile()
	st := b.server.object().Status
	if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "in use by pid 4242 (vim, uid 1001): cwd "+testPath+"/src") {
		t.Fatalf("status %s", describe(&st))
	}
	if st.Mounts[0].Ready || st.Mounts[0].State != dws.Unmounted {
		t.Errorf("status %s", describe(&st))
	}
}

// Mounts come up in order and go down in reverse; one failure does not keep
// the others from being tried and the first error is reported.
func TestSeveralMounts(t *testing.T) {
	b := newBench(t, dws.TypeLustre)
	for i, path := range []string{"/mnt/nnf/b", "/mnt/nnf/c"} {
		m := b.server.cm.Spec.Mounts[0]
		m.MountPath = path
		m.Device.Lustre = &dws.LustreDevice{FileSystemName: "fs" + string(rune('b'+i)), MGSAddresses: "10.1.1.2@tcp"}
		b.server.cm.Spec.Mounts = append(b.server.cm.Spec.Mounts, m)
	}
	b.machine.fail["mount -t lustre 10.1.1.2@tcp:/fsb"] = errors.New("no route to the server")
	b.reconcile()
	st := b.server.object().Status
	if st.Mounts[0].Ready != true || st.Mounts[1].Ready || !st.Mounts[2].Ready || !strings.Contains(st.Error.DebugMessage, "no route") {
		t.Fatalf("status %s", describe(&st))
	}
	delete(b.machine.fail, "mount -t lustre 10.1.1.2@tcp:/fsb")
	b.reconcile()
	b.machine.done()
	b.want(dws.Unmounted)
	b.reconcile()
	var order []string
	for _, line := range b.machine.done() {
		if p, ok := strings.CutPrefix(line, "umount "); ok {
			order = append(order, p)
		}
	}
	b.expect("unmount order", order, []string{"/mnt/nnf/c", "/mnt/nnf/b", testPath})
}

func TestBadObjects(t *testing.T) {
	for name, c := range map[string]struct {
		change func(cm *dws.ClientMount)
		text   string
	}{
		"another node":       {func(cm *dws.ClientMount) { cm.Spec.Node = "compute-02" }, "compute-02"},
		"no device block":    {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Device = dws.Device{Type: "lvm"} }, "deviceReference"},
		"no mounts":          {func(cm *dws.ClientMount) { cm.Spec.Mounts = nil }, "mounts"},
		"root":               {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].MountPath = "/" }, "mountPath"},
		"relative":           {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].MountPath = "mnt/x" }, "mountPath"},
		"dots":               {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].MountPath = "/mnt/../etc" }, "mountPath"},
		"control characters": {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].MountPath = "/mnt/a\nb" }, "mountPath"},
		"shell text":         {func(cm *dws.ClientMount) { cm.Labels[api.LabelJobID] = "$(reboot)" }, api.LabelJobID},
		"unknown type":       {func(cm *dws.ClientMount) { cm.Spec.Mounts[0].Type = "zfs" }, "zfs"},
		"no profile label":   {func(cm *dws.ClientMount) { delete(cm.Labels, api.LabelPinnedProfileName) }, api.LabelPinnedProfileName},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			c.change(b.server.cm)
			res := b.reconcile()
			st := b.server.object().Status
			if !res.hopeless || st.Error == nil || st.Error.Severity != dws.Fatal || !strings.Contains(st.Error.DebugMessage, c.text) {
				t.Fatalf("%+v, status %s", res, describe(&st))
			}
			if got := b.machine.done(); len(got) > 0 {
				t.Errorf("effects of a refused object: %q", got)
			}
			b.delete()
			if len(b.server.cm.Finalizers) > 0 {
				if res := b.reconcile(); !res.finished {
					t.Errorf("cannot be deleted: %+v", res)
				}
			}
		})
	}
}

// The device may be attached late: a rescan is tried, but not for ever.
func TestActivationRetry(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.fail["no lv"] = errors.New("yes")
	times := 0
	b.machine.rescan = func(f *fakeMachine) {
		if times++; times == 2 {
			f.mu.Lock()
			delete(f.fail, "no lv")
			f.mu.Unlock()
		}
	}
	if res := b.reconcile(); res.failed || times != 2 {
		t.Fatalf("%+v after %d rescans: %s", res, times, describe(&b.server.object().Status))
	}

	b = newBench(t, dws.TypeXFS)
	b.machine.fail["no lv"] = errors.New("yes")
	b.reconcile()
	st := b.server.object().Status
	if st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, "unable to activate block device: could not find logical volume "+testVG+"/"+testLV) ||
		!strings.Contains(st.Error.DebugMessage, "3 rescans") {
		t.Fatalf("status %s", describe(&st))
	}

	b = newBench(t, dws.TypeXFS)
	b.machine.fail["no lv"], b.machine.fail["namespaces"] = errors.New("yes"), errors.New("yes")
	b.reconcile()
	if st := b.server.object().Status; !strings.Contains(st.Error.DebugMessage, "missing after a rescan: nqn.2014-08.org.example:disk0 namespace 12") {
		t.Fatalf("status %s", describe(&st))
	}
}

// When the wish turns back in the middle of an unmount, the old ready:true is
// withdrawn before the mounts come up again.
func TestTurnBack(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.server.written()
	b.want(dws.Unmounted)
	b.machine.fail["umount"] = errors.New("no")
	b.server.fail["status"] = errors.New("API server away")
	b.reconcile()
	delete(b.machine.fail, "umount")
	delete(b.server.fail, "status")
	b.want(dws.Mounted)
	b.machine.done()
	b.reconcile()
	b.expect("writes", b.server.written(), []string{"status [{mounted false}] false", "status [{mounted true}] true"})
	if got := b.machine.done(); got[0] != "hook pre-activate f9Tk" {
		t.Errorf("hooks of a half unmounted file system run again: %q", got)
	}
}

// The unmount ended but its status was never written: the way back runs the
// hooks, because nothing is mounted any more.
func TestTurnBackAfterUnmount(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.want(dws.Unmounted)
	b.server.fail["status"] = errors.New("API server away")
	b.reconcile()
	if b.machine.mounted(testPath) {
		t.Fatal("still mounted")
	}
	delete(b.server.fail, "status")
	b.server.written()
	b.machine.done()
	b.want(dws.Mounted)
	b.restart(b.rec.records)
	b.reconcile()
	if got := b.machine.done(); got[0] != "hook pre-activate f9Tk" || !b.machine.mounted(testPath) {
		t.Errorf("%q", got)
	}
	b.expect("writes", b.server.written(), []string{"status [{mounted false}] false", "status [{mounted true}] true"})
}

// What is mounted and ready stays reported so when its profile goes; without
// a record there is nothing to go by.
func TestReadyMountWithoutProfile(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.server.written()
	b.server.profile = nil
	b.restart(b.rec.records)
	if res := b.reconcile(); res.failed {
		t.Fatalf("%+v %s", res, describe(&b.server.object().Status))
	}
	b.expect("writes", b.server.written(), nil)
	if err := b.rec.records.Remove("aaaa-1"); err != nil {
		t.Fatal(err)
	}
	b.restart(b.rec.records)
	if res := b.reconcile(); !res.failed {
		t.Fatal("mounted by what?")
	}
	if st := b.server.object().Status; st.Error.Severity != dws.Major || st.Mounts[0].Ready {
		t.Errorf("status %s", describe(&st))
	}
}

// A changed spec takes the old mount away before the new one comes.
func TestChangedPath(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.server.cm.Spec.Mounts[0].MountPath = "/mnt/nnf/elsewhere"
	b.server.cm.Generation++
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	if b.machine.mounted(testPath) || !b.machine.mounted("/mnt/nnf/elsewhere") {
		t.Fatalf("table %+v", b.machine.table)
	}
}

func TestFinalizerOfOthersSurvives(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.server.cm.Finalizers = []string{"example.org/a"}
	stale := b.server.object()
	b.server.cm.Finalizers = []string{"example.org/a", "example.org/b"}
	if res := b.rec.reconcile(context.Background(), context.Background(), b.work, stale); res.failed {
		t.Fatalf("%+v", res)
	}
	b.expect("finalizers", b.server.object().Finalizers, []string{"example.org/a", "example.org/b", api.FinalizerClientMount})
	b.delete()
	b.reconcile()
	b.expect("finalizers", b.server.object().Finalizers, []string{"example.org/a", "example.org/b"})
}

func TestPanicEndsTheAttemptOnly(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.rec.machine = nil
	if res := b.reconcile(); !res.retry || !res.failed {
		t.Fatalf("%+v", res)
	}
}

func TestInterrupted(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	steps, end := context.WithCancelCause(t.Context())
	end(errStopping)
	res := b.rec.reconcile(t.Context(), steps, b.work, b.server.object())
	if res.failed {
		t.Fatalf("%+v", res)
	}
	b.expect("no step starts after a stop", b.machine.done(), nil)
	b.expect("the status says what is pursued", b.server.written(), []string{"finalizers [" + api.FinalizerClientMount + "]", "status [{mounted false}] false"})
}
