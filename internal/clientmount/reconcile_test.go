package clientmount

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// A complete lifecycle takes four writes, runs each hook once and leaves nothing behind.
func TestLifecycle(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	if res := f.reconcile(); res != (result{}) {
		t.Fatalf("mount: %+v", res)
	}
	f.expect("mount", f.machine.done(), []string{
		"hook pre-activate f9Tk", "lvs " + testVG, "lvchange --activate y " + testVG + "/" + testLV,
		"mkdir " + testPath, "mount -t xfs " + testDevice + " " + testPath, "hook post-mount",
	})
	f.expect("writes", f.server.written(), []string{"finalizers [" + api.FinalizerClientMount + "]", "status [{mounted true}] true"})

	if res := f.reconcile(); res != (result{}) {
		t.Fatalf("again: %+v", res)
	}
	f.expect("a second attempt only checks", f.machine.done(), []string{"lvs " + testVG})
	f.expect("and writes nothing", f.server.written(), nil)

	f.want(dws.Unmounted)
	f.reconcile()
	f.expect("unmount", f.machine.done(), []string{
		"hook pre-unmount", "umount " + testPath, "remove " + testPath + " [" + testPath + "]",
		"lvs " + testVG, "lvchange --activate n " + testVG + "/" + testLV, "hook post-deactivate",
	})
	f.expect("writes", f.server.written(), []string{"status [{unmounted true}] true"})
	f.reconcile()
	f.expect("an unmounted and ready entry is not touched", f.machine.done(), nil)

	f.delete()
	if res := f.reconcile(); !res.finished {
		t.Fatalf("delete: %+v", res)
	}
	f.expect("delete", f.machine.done(), []string{"rescan nqn.2014-08.org.example:disk0"})
	f.expect("writes", f.server.written(), []string{"finalizers []"})
	if left, err := f.rec.records.List(); err != nil || len(left) > 0 {
		t.Fatalf("records left: %v %v", left, err)
	}
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
			f := newFixture(t, dws.TypeXFS)
			c.change(f.server.cm)
			res := f.reconcile()
			st := f.server.object().Status
			if !res.permanent || st.Error == nil || st.Error.Severity != dws.Fatal || !strings.Contains(st.Error.DebugMessage, c.text) {
				t.Fatalf("%+v, status %s", res, describe(&st))
			}
			if got := f.machine.done(); len(got) > 0 {
				t.Errorf("effects of a refused object: %q", got)
			}
			f.delete()
			if res := f.reconcile(); !res.finished {
				t.Errorf("cannot be deleted: %+v", res)
			}
		})
	}
}

func TestPanicEndsTheAttemptOnly(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.rec.host = nil
	if res := f.reconcile(); !res.retry || !res.failed {
		t.Fatalf("%+v", res)
	}
}

func TestInterrupted(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.rec.stopping = func() bool { return true }
	steps, end := context.WithCancel(t.Context())
	end()
	res := f.rec.reconcile(t.Context(), steps, f.work, f.server.object())
	if res.failed {
		t.Fatalf("%+v", res)
	}
	f.expect("no step starts after a stop", f.machine.done(), nil)
	f.expect("the status has the desired state", f.server.written(), []string{"finalizers [" + api.FinalizerClientMount + "]", "status [{mounted false}] false"})
}

// Hooks are not repeated if the status could not be written.
func TestRejectedStatus(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.server.fail["status"] = errors.New("denied by a webhook")
	for range 3 {
		f.reconcile()
	}
	f.want(dws.Unmounted)
	for range 3 {
		f.reconcile()
	}
	ran := map[string]int{}
	for _, line := range f.machine.done() {
		if strings.HasPrefix(line, "hook") || strings.HasPrefix(line, "umount") {
			ran[line]++
		}
	}
	for line, n := range ran {
		if n != 1 {
			t.Errorf("%q ran %d times", line, n)
		}
	}
	if len(ran) != 5 {
		t.Errorf("%v", ran)
	}
	delete(f.server.fail, "status")
	if f.reconcile(); !f.server.object().Status.AllReady {
		t.Error(describe(&f.server.object().Status))
	}
}

// If the record of an object cannot be read, nothing is done for the object, and the file
// is not overwritten.
func TestUnreadableRecord(t *testing.T) {
	for name, text := range map[string]string{
		"damaged": `{"version":1,"na`, "empty": "", "of another object": `{"version":1,"uid":"zzzz"}`, "newer": `{"version":99,"uid":"aaaa-1","mounts":"elsewhere"}`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			file, err := f.rec.records.file("aaaa-1")
			if err != nil {
				t.Fatal(err)
			}
			good, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			f.restart(f.rec.records)
			f.machine.done()
			for _, change := range []func(){func() {}, func() { f.want(dws.Unmounted) }, f.delete} {
				change()
				res := f.reconcile()
				st := f.server.object().Status
				if !res.failed || res.finished || st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, file) {
					t.Fatalf("%+v, status %s", res, describe(&st))
				}
			}
			f.expect("effects", f.machine.done(), nil)
			above := f.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf")(cm) })
			if res := above.reconcile(); res.blocked == nil {
				t.Errorf("mounted above a path where something may be mounted: %+v %s", res, describe(&above.server.object().Status))
			}
			f.expect("effects of another object", f.machine.done(), nil)
			if now, err := os.ReadFile(file); err != nil || string(now) != text {
				t.Fatalf("the file was changed: %q %v", now, err)
			}
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if res := f.reconcile(); !res.finished || f.machine.mounted(testPath) {
				t.Errorf("%+v after the repair", res)
			}
		})
	}
}

// An unmount works even if the record cannot be written; a mount does not.
func TestUnwritableRecords(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	dir := f.rec.records.dir
	f.rec.records.dir = filepath.Join(dir, "gone") // every write fails
	f.machine.done()
	other := f.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf/other")(cm) })
	if res := other.reconcile(); !res.failed || !strings.Contains(describe(&other.server.object().Status), "cannot save the record") {
		t.Fatal(describe(&other.server.object().Status))
	}
	f.expect("effects of a mount that cannot be recorded", f.machine.done(), nil)
	other.delete()
	if res := other.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
	f.expect("and of its deletion", effects(f.machine.done()), nil)
	f.want(dws.Unmounted)
	if f.reconcile(); f.machine.mounted(testPath) || !f.server.object().Status.AllReady {
		t.Fatal(describe(&f.server.object().Status))
	}
	f.delete()
	if res := f.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
}

// A complete lifecycle takes two GETs of the profile and four writes.
func TestRequestsPerLifecycle(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.want(dws.Unmounted)
	f.reconcile()
	f.delete()
	f.reconcile()
	if n := len(f.server.written()); f.server.gets != 2 || n != 4 {
		t.Errorf("%d GETs, %d writes", f.server.gets, n)
	}
}

// Repeated failures to write the status are logged once, even if the mount fails at the
// same time, and if the texts differ in numbers.
func TestRejectedWriteIsLoggedOnce(t *testing.T) {
	for _, mountFails := range []bool{false, true} {
		t.Run(fmt.Sprintf("mount fails %v", mountFails), func(t *testing.T) {
			f := newFixture(t, dws.TypeXFS)
			var out bytes.Buffer
			f.rec.log = slog.New(slog.NewTextHandler(&out, nil))
			if mountFails {
				f.machine.fail["mount"] = errors.New("no such device")
			}
			for i := range 5 {
				f.server.fail["status"] = fmt.Errorf("read from port %d: connection reset", 4000+i)
				f.reconcile()
			}
			count := func(text string, want int) {
				t.Helper()
				if n := strings.Count(out.String(), text); n != want {
					t.Errorf("%q occurs %d times, want %d:\n%s", text, n, want, &out)
				}
			}
			count("cannot write the status", 1)
			if mountFails {
				count("ClientMount failed", 1)
			}
			f.server.fail["status"] = apierrors.NewUnauthorized("who are you")
			f.reconcile()
			count("cannot write the status", 2) // another kind of failure
			delete(f.server.fail, "status")
			f.reconcile()
			f.want(dws.Unmounted)
			f.server.fail["status"] = apierrors.NewUnauthorized("who are you")
			f.reconcile()
			count("cannot write the status", 3) // the same kind again, after a success
		})
	}
}
