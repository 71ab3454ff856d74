package clientmount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// beside adds a second object to a bench: its own server, the same machine and
// the same reconciler.
func (b *bench) beside(name string, uid types.UID, change func(*dws.ClientMount)) *bench {
	cm := testObject(b.server.cm.Spec.Mounts[0].Type)
	cm.Name, cm.UID = name, uid
	if change != nil {
		change(cm)
	}
	other := &bench{t: b.t, machine: b.machine, server: newFakeServer(cm, testProfile()), work: &work{}}
	rec := *b.rec
	rec.remote.client = other.server
	other.rec = &rec
	return other
}

func at(path string) func(*dws.ClientMount) {
	return func(cm *dws.ClientMount) { cm.Spec.Mounts[0].MountPath = path }
}

func otherVolume(cm *dws.ClientMount) { cm.Spec.Mounts[0].Device.DeviceReference.Data++ }

func effects(log []string) (out []string) {
	for _, line := range log {
		if verb, _, _ := strings.Cut(line, " "); slices.Contains([]string{"mount", "umount", "lvchange", "mkdir", "touch", "remove", "hook", "vgchange"}, verb) {
			out = append(out, line)
		}
	}
	return out
}

// Two objects with the same volume at the same path: one mount, which goes with
// the last of them, whichever that is.
func TestSharedMount(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		for _, firstLeaves := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, first leaves first %t", typ, firstLeaves), func(t *testing.T) {
				a := newBench(t, typ)
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
				a.expect("effects of the first that leaves", effects(a.machine.done()), nil)
				if res := stays.reconcile(); res.failed || !a.machine.mounted(testPath) {
					t.Fatal(describe(&stays.server.object().Status))
				}
				a.machine.done()
				stays.delete()
				if res := stays.reconcile(); !res.finished || a.machine.mounted(testPath) || a.machine.lvs[testVG+"/"+testLV] {
					t.Fatalf("%+v %s", res, describe(&stays.server.object().Status))
				}
				if log := a.machine.done(); !slices.Contains(log, "remove "+testPath+" ["+testPath+"]") {
					t.Errorf("the target that the first made was not removed: %q", log)
				}
			})
		}
	}
}

// The volume stays active as long as it is mounted at another path.
func TestSharedVolume(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
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

// A path that another object uses with another volume, or one above or below
// it, is refused; nothing happens; the refused object can be deleted at once.
func TestConflict(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*dws.ClientMount)
		text   string
	}{
		"same path":  {otherVolume, "mount path " + testPath + " is in use by ClientMount default-job7-0-computes with another volume (lvm:" + testVG + "/lv-3)"},
		"path above": {at("/mnt/nnf"), "mount path /mnt/nnf would hide " + testPath + ", where ClientMount default-job7-0-computes has mounted lvm:"},
		"path below": {at(testPath + "/sub"), "mount path " + testPath + "/sub lies below " + testPath + ", where ClientMount default-job7-0-computes"},
	} {
		t.Run(name, func(t *testing.T) {
			a := newBench(t, dws.TypeXFS)
			a.reconcile()
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
				t.Error("no call when the path became free")
			}
			if res := b.reconcile(); res.blocked != nil {
				t.Errorf("still refused: %s", describe(&b.server.object().Status))
			}
		})
	}
}

// A neighbour is no conflict.
func TestNoConflict(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
	b := a.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at(testPath + "0")(cm) })
	b.machine.lvs[testVG+"/lv-4"] = true
	if res := b.reconcile(); res.blocked != nil {
		t.Errorf("%+v %s", res, describe(&b.server.object().Status))
	}
}

// After a restart the registry knows what the records list, before any
// object has been looked at.
func TestRegistryFromRecords(t *testing.T) {
	a := newBench(t, dws.TypeXFS)
	a.reconcile()
	a.restart(a.rec.records)
	b := a.beside("job8", "bbbb-2", at("/mnt/nnf"))
	if res := b.reconcile(); res.blocked == nil {
		t.Errorf("%+v", res)
	}
}

// One that has claimed its path and waits for its turn inherits what the one
// that leaves knows.
func TestHandOver(t *testing.T) {
	a := newBench(t, dws.TypeLustre)
	a.machine.missing = []string{testPath}
	a.machine.shows = "192.0.2.1@tcp:/job7fs" // so that only the record can tell
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
		t.Error("left mounted, or its target")
	}
}

// The identity decides what is unmounted: whatever the source says, in the
// whole table, and nothing else.
func TestUnmountByIdentity(t *testing.T) {
	foreign := node.Mount{ID: 7, Mountpoint: testPath, FSType: "ext4", Source: "/dev/sda1", Major: 8, Minor: 1, Root: "/"}
	t.Run("hidden", func(t *testing.T) {
		b := newBench(t, dws.TypeXFS)
		b.reconcile()
		b.machine.table = append(b.machine.table, foreign)
		b.want(dws.Unmounted)
		b.reconcile()
		st := b.server.object().Status
		if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "is hidden by device /dev/sda1 type ext4") || st.Mounts[0].Ready || len(b.machine.table) != 2 {
			t.Fatalf("status %s, table %v", describe(&st), b.machine.table)
		}
		b.machine.table = b.machine.table[:1]
		if b.reconcile(); len(b.machine.table) != 0 || !b.server.object().Status.AllReady {
			t.Errorf("table %v", b.machine.table)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		b := newBench(t, dws.TypeXFS)
		b.reconcile()
		b.machine.table = []node.Mount{foreign}
		b.machine.done()
		b.delete()
		if res := b.reconcile(); !res.finished || len(b.machine.table) != 1 {
			t.Errorf("%+v, table %v", res, b.machine.table)
		}
		for _, line := range b.machine.done() {
			if strings.HasPrefix(line, "umount") {
				t.Errorf("ran %q", line)
			}
		}
	})
	t.Run("command that does nothing", func(t *testing.T) {
		b := newBench(t, dws.TypeXFS)
		b.server.profile.Data.XFS.FileSystem.Compute.Unmount = "--help"
		b.reconcile()
		b.want(dws.Unmounted)
		b.reconcile()
		if st := b.server.object().Status; st.Error == nil || !strings.Contains(st.Error.DebugMessage, "reported success but") || st.Mounts[0].Ready {
			t.Errorf("status %s", describe(&st))
		}
	})
	t.Run("profile that lost its commands", func(t *testing.T) {
		b := newBench(t, dws.TypeXFS)
		b.reconcile()
		f := &b.server.profile.Data.XFS.FileSystem.Compute
		f.Mount, f.Unmount = "", ""
		b.want(dws.Unmounted)
		b.reconcile()
		if st := b.server.object().Status; b.machine.mounted(testPath) || st.Error != nil {
			t.Errorf("status %s", describe(&st))
		}
	})
}

// What our own command mounted is ours whatever the kernel shows as its source,
// even if the daemon dies before it can note it.
func TestOtherSource(t *testing.T) {
	for name, noted := range map[string]bool{"noted": true, "not noted": false} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeLustre)
			b.server.cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = "mgs.example.org@tcp"
			b.machine.shows = "192.0.2.1@tcp:/job7fs"
			if res := b.reconcile(); res.failed {
				t.Fatal(describe(&b.server.object().Status))
			}
			if !noted {
				rec := b.work.record.clone()
				rec.Mounts[0].Mounted, rec.Mounts[0].Mounting = nil, true
				if err := b.rec.records.Save(rec); err != nil {
					t.Fatal(err)
				}
			}
			b.restart(b.rec.records)
			b.machine.done()
			if res := b.reconcile(); res.failed {
				t.Fatal(describe(&b.server.object().Status))
			}
			b.expect("effects after the restart", effects(b.machine.done()), nil)
			b.delete()
			if res := b.reconcile(); !res.finished || b.machine.mounted(testPath) {
				t.Errorf("%+v", res)
			}
		})
	}
}

// An object that was never mounted undoes nothing that it names.
func TestNeverMounted(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.lvs[testVG+"/"+testLV] = true // another user's
	b.want(dws.Unmounted)
	b.reconcile()
	b.delete()
	if res := b.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
	b.expect("effects", effects(b.machine.done()), nil)
}

// Hooks are not repeated because a status could not be written.
func TestRefusedStatus(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.server.fail["status"] = errors.New("denied by a webhook")
	for range 3 {
		b.reconcile()
	}
	b.want(dws.Unmounted)
	for range 3 {
		b.reconcile()
	}
	ran := map[string]int{}
	for _, line := range b.machine.done() {
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
	delete(b.server.fail, "status")
	if b.reconcile(); !b.server.object().Status.AllReady {
		t.Error(describe(&b.server.object().Status))
	}
}

// A record that cannot be read stops everything for its object, and is never
// overwritten.
func TestUnreadableRecord(t *testing.T) {
	for name, text := range map[string]string{
		"damaged": `{"version":1,"na`, "empty": "", "of another object": `{"version":1,"uid":"zzzz"}`, "newer": `{"version":99,"uid":"aaaa-1","mounts":"elsewhere"}`,
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, dws.TypeXFS)
			b.reconcile()
			file, err := b.rec.records.file("aaaa-1")
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
			b.restart(b.rec.records)
			b.machine.done()
			for _, wish := range []func(){func() {}, func() { b.want(dws.Unmounted) }, b.delete} {
				wish()
				res := b.reconcile()
				st := b.server.object().Status
				if !res.failed || res.finished || st.Error == nil || st.Error.Severity != dws.Major || !strings.Contains(st.Error.DebugMessage, file) {
					t.Fatalf("%+v, status %s", res, describe(&st))
				}
			}
			b.expect("effects", b.machine.done(), nil)
			above := b.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf")(cm) })
			if res := above.reconcile(); res.blocked == nil {
				t.Errorf("a mount above what may be mounted: %+v %s", res, describe(&above.server.object().Status))
			}
			b.expect("effects of another object", b.machine.done(), nil)
			if now, err := os.ReadFile(file); err != nil || string(now) != text {
				t.Fatalf("the file was changed: %q %v", now, err)
			}
			if err := os.WriteFile(file, good, 0o600); err != nil {
				t.Fatal(err)
			}
			if res := b.reconcile(); !res.finished || b.machine.mounted(testPath) {
				t.Errorf("%+v after the repair", res)
			}
		})
	}
}

// Undoing needs no record that can be written; mounting does.
func TestUnwritableRecords(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	dir := b.rec.records.dir
	b.rec.records.dir = filepath.Join(dir, "gone") // every write fails
	b.machine.done()
	other := b.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf/other")(cm) })
	if res := other.reconcile(); !res.failed || !strings.Contains(describe(&other.server.object().Status), "cannot save the record") {
		t.Fatal(describe(&other.server.object().Status))
	}
	b.expect("effects of a mount that cannot be recorded", b.machine.done(), nil)
	other.delete()
	if res := other.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
	b.expect("and of its deletion", effects(b.machine.done()), nil)
	b.want(dws.Unmounted)
	if b.reconcile(); b.machine.mounted(testPath) || !b.server.object().Status.AllReady {
		t.Fatal(describe(&b.server.object().Status))
	}
	b.delete()
	if res := b.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
}

// A record that is on disk as it is needs no writing: a daemon that starts with a
// directory that is full or read-only still knows that everything is in place.
func TestUnchangedRecord(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.restart(b.rec.records)
	records, file := b.rec.records, ""
	var err error
	if file, err = records.file("aaaa-1"); err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	if after, err := os.Stat(file); err != nil || !os.SameFile(before, after) {
		t.Errorf("the record was written again (%v)", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	b.reconcile()
	if _, err := os.Stat(file); err != nil {
		t.Errorf("a record that was removed is not written again: %v", err)
	}
}

// What Save accepts, Load can read, and nothing else is saved.
func TestRecordSize(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	rec := b.work.record.clone()
	for _, kilobytes := range []int{1, 4000, 5000} {
		rec.Mounts[0].Created = []string{strings.Repeat("a", kilobytes<<10)}
		saved := b.rec.records.Save(rec)
		if (saved == nil) != (kilobytes < 4096) {
			t.Errorf("%d kB: %v", kilobytes, saved)
		}
		if _, err := b.rec.records.Load(rec.UID); err != nil {
			t.Errorf("%d kB: %v", kilobytes, err)
		}
	}
}

// Two GETs of the profile and four writes in a whole life.
func TestRequestsPerLife(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.want(dws.Unmounted)
	b.reconcile()
	b.delete()
	b.reconcile()
	if n := len(b.server.written()); b.server.gets != 2 || n != 4 {
		t.Errorf("%d GETs, %d writes", b.server.gets, n)
	}
}

// Root's links are resolved once; afterwards the record tells.
func TestLinkInThePath(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.machine.link = [2]string{"/mnt/", "/var/mnt/"}
	real := "/var" + testPath
	if res := b.reconcile(); res.failed || !b.machine.mounted(real) {
		t.Fatalf("%s, table %v", describe(&b.server.object().Status), b.machine.table)
	}
	b.machine.fail["resolve"] = errors.New("a server that does not answer")
	b.restart(b.rec.records)
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	b.delete()
	if res := b.reconcile(); !res.finished || b.machine.mounted(real) {
		t.Errorf("%+v", res)
	}
}

// What was mounted before the site changed mount.roots stays mounted and ready,
// and is unmounted.
func TestRootsChanged(t *testing.T) {
	b := newBench(t, dws.TypeXFS)
	b.reconcile()
	b.restart(b.rec.records)
	b.rec.plan.Roots = []string{"/elsewhere"}
	if res := b.reconcile(); res.failed {
		t.Fatal(describe(&b.server.object().Status))
	}
	fresh := b.beside("job8", "bbbb-2", func(cm *dws.ClientMount) { otherVolume(cm); at("/mnt/nnf/other")(cm) })
	fresh.rec.plan = b.rec.plan
	if res := fresh.reconcile(); !res.hopeless {
		t.Errorf("a new mount outside the roots: %+v", res)
	}
	b.delete()
	if res := b.reconcile(); !res.finished || b.machine.mounted(testPath) {
		t.Errorf("%+v", res)
	}
}

// An object that waits for the path of another starts as soon as the path is
// free, not after the pause of a retry.
func TestPathThatBecomesFree(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		records, err := OpenRecords(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		server := newFakeServer(testObject(dws.TypeLustre), testProfile())
		machine := newFakeMachine()
		c := New(Options{
			Node: "compute-01", Client: server, Machine: machine, Records: records, Mounts: MountsResource("v1alpha7"),
			Limits: Limits{Command: time.Minute, Hook: time.Minute, RetryMax: time.Hour}, Log: slog.New(slog.DiscardHandler),
		})
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- c.Run(ctx) }()

		holder := testObject(dws.TypeLustre)
		holder.Name, holder.UID = "holder", "hhhh-1"
		holder.Spec.Mounts[0].MountPath = testPath + "/below"
		c.Replace([]*dws.ClientMount{holder})
		synctest.Wait()
		if !machine.mounted(testPath + "/below") {
			t.Fatal("the first one is not mounted")
		}
		c.Upsert(server.object())
		time.Sleep(2 * time.Minute) // virtual: the pauses of its retries grow
		synctest.Wait()
		if st := server.object().Status; st.Error == nil {
			t.Fatalf("status %s", describe(&st))
		}
		changed := *holder
		changed.Spec.DesiredState, changed.Generation = dws.Unmounted, 2
		c.Upsert(&changed)
		time.Sleep(time.Second)
		synctest.Wait()
		if st := server.object().Status; !st.AllReady || !machine.mounted(testPath) {
			t.Errorf("still waiting: %s", describe(&st))
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
