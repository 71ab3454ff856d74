package clientmount

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// Without an unmount command in the profile, "unmounted" is reported only after umount has
// run, and the finalizer stays while the file system is mounted.
func TestNoUnmountCommand(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		for name, release := range map[string]func(*fixture){
			"unmounted": func(f *fixture) { f.want(dws.Unmounted) },
			"deleted":   (*fixture).delete,
		} {
			t.Run(typ+"/"+name, func(t *testing.T) {
				f := newFixture(t, typ)
				d := &f.server.profile.Data
				d.XFS.FileSystem.Compute.Unmount, d.GFS2.FileSystem.Compute.Unmount, d.Raw.FileSystem.Compute.Unmount = "", "", ""
				d.Lustre.Client.CommandLines.Unmount = ""
				if res := f.reconcile(); res.failed || !f.machine.mounted(testPath) {
					t.Fatalf("not mounted: %+v", res)
				}
				f.machine.fail["umount "+testPath] = errors.New("target is busy")
				release(f)
				res := f.reconcile()
				if cm := f.server.object(); !res.failed || res.finished || cm == nil || cm.Status.AllReady {
					t.Fatalf("success although it is mounted: %+v, object %+v", res, cm)
				}
				delete(f.machine.fail, "umount "+testPath)
				f.machine.done()
				if res := f.reconcile(); res.failed || f.machine.mounted(testPath) {
					t.Errorf("still mounted: %+v", res)
				}
				if ran := f.machine.done(); !slices.Contains(ran, "umount "+testPath) {
					t.Errorf("umount did not run: %q", ran)
				}
			})
		}
	}
}

func TestDeleteWhileMounted(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		t.Run(typ, func(t *testing.T) {
			f := newMounted(t, typ)
			if !f.machine.mounted(testPath) {
				t.Fatalf("not mounted: %q", f.machine.done())
			}
			f.server.written()
			f.delete()
			if res := f.reconcile(); !res.finished || f.machine.mounted(testPath) {
				t.Fatalf("%+v, mounted %v, %q", res, f.machine.mounted(testPath), f.machine.done())
			}
			f.expect("one write", f.server.written(), []string{"finalizers []"})
			if f.machine.lvs[testVG+"/"+testLV] {
				t.Error("the logical volume is still active")
			}
		})
	}
}

// The unmount works after the profile was deleted, because the record has the commands.
func TestUnmountWithoutProfile(t *testing.T) {
	for name, forget := range map[string]bool{"by the record": false, "by computed names": true} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			f.machine.done()
			f.server.profile = nil
			if forget {
				if err := f.rec.records.Remove("aaaa-1"); err != nil {
					t.Fatal(err)
				}
			}
			f.restart(f.rec.records)
			f.want(dws.Unmounted)
			if res := f.reconcile(); res.failed {
				t.Fatalf("%+v %s", res, describe(&f.server.object().Status))
			}
			if f.machine.mounted(testPath) || f.machine.lvs[testVG+"/"+testLV] {
				t.Fatalf("left mounted or active: %q", f.machine.done())
			}
			ran := strings.Join(f.machine.done(), "\n")
			if hooks := strings.Contains(ran, "hook pre-unmount"); hooks == forget {
				t.Errorf("hooks ran: %v\n%s", hooks, ran)
			}
		})
	}
}

// The recorded identity determines which mount is unmounted, wherever it is in the table
// and whatever its source is.
func TestUnmountByIdentity(t *testing.T) {
	foreign := node.Mount{ID: 7, Mountpoint: testPath, FSType: "ext4", Source: "/dev/sda1", Major: 8, Minor: 1, Root: "/"}
	t.Run("hidden", func(t *testing.T) {
		f := newMounted(t, dws.TypeXFS)
		f.machine.table = append(f.machine.table, foreign)
		f.want(dws.Unmounted)
		f.reconcile()
		st := f.server.object().Status
		if st.Error == nil || !strings.Contains(st.Error.DebugMessage, "is hidden by device /dev/sda1 type ext4") || st.Mounts[0].Ready || len(f.machine.table) != 2 {
			t.Fatalf("status %s, table %v", describe(&st), f.machine.table)
		}
		f.machine.table = f.machine.table[:1]
		if f.reconcile(); len(f.machine.table) != 0 || !f.server.object().Status.AllReady {
			t.Errorf("table %v", f.machine.table)
		}
	})
	t.Run("replaced", func(t *testing.T) {
		f := newMounted(t, dws.TypeXFS)
		f.machine.table = []node.Mount{foreign}
		f.machine.done()
		f.delete()
		if res := f.reconcile(); !res.finished || len(f.machine.table) != 1 {
			t.Errorf("%+v, table %v", res, f.machine.table)
		}
		for _, line := range f.machine.done() {
			if strings.HasPrefix(line, "umount") {
				t.Errorf("ran %q", line)
			}
		}
	})
	t.Run("command that does nothing", func(t *testing.T) {
		f := newFixture(t, dws.TypeXFS)
		f.server.profile.Data.XFS.FileSystem.Compute.Unmount = "--help"
		f.reconcile()
		f.want(dws.Unmounted)
		f.reconcile()
		if st := f.server.object().Status; st.Error == nil || !strings.Contains(st.Error.DebugMessage, "reported success but") || st.Mounts[0].Ready {
			t.Errorf("status %s", describe(&st))
		}
	})
	t.Run("profile without commands", func(t *testing.T) {
		f := newMounted(t, dws.TypeXFS)
		commands := &f.server.profile.Data.XFS.FileSystem.Compute
		commands.Mount, commands.Unmount = "", ""
		f.want(dws.Unmounted)
		f.reconcile()
		if st := f.server.object().Status; f.machine.mounted(testPath) || st.Error != nil {
			t.Errorf("status %s", describe(&st))
		}
	})
}

// The unmount of an object that was never mounted has no effect.
func TestNeverMounted(t *testing.T) {
	f := newFixture(t, dws.TypeXFS)
	f.machine.lvs[testVG+"/"+testLV] = true // another user's
	f.want(dws.Unmounted)
	f.reconcile()
	f.delete()
	if res := f.reconcile(); !res.finished {
		t.Fatalf("%+v", res)
	}
	f.expect("effects", effects(f.machine.done()), nil)
}

// A directory that was created for one mount of an object and is in use by another one is
// removed when the last one is unmounted, without unnecessary checks.
func TestTargetIsRemovedLater(t *testing.T) {
	f := newMounted(t, dws.TypeXFS)
	f.machine.done()
	f.machine.stays = []string{"/mnt/nnf"}
	f.want(dws.Unmounted)
	f.reconcile()
	removals := func() (out []string) {
		for _, line := range f.machine.done() {
			if strings.HasPrefix(line, "remove ") {
				out = append(out, line)
			}
		}
		return out
	}
	f.expect("unmount, then again", removals(), []string{"remove " + testPath + " [" + testPath + "]", "remove " + testPath + " [/mnt/nnf]"})
	f.machine.stays = nil
	f.delete()
	f.reconcile()
	f.expect("and at the deletion", removals(), []string{"remove " + testPath + " [/mnt/nnf]"})
}

// A target that cannot be removed is logged at level info; a directory that another mount
// uses only at level debug.
func TestRemainingTargetIsLogged(t *testing.T) {
	for name, tt := range map[string]struct {
		left []string
		err  error
		want string
	}{
		"nothing left":    {nil, nil, ""},
		"a shared parent": {[]string{"/mnt/nnf"}, nil, "level=DEBUG"},
		"the target":      {[]string{testPath, "/mnt/nnf"}, unix.ENOTEMPTY, "level=INFO"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newMounted(t, dws.TypeXFS)
			var out bytes.Buffer
			f.rec.log = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}))
			f.machine.stays = tt.left
			if tt.err != nil {
				f.machine.fail["remove"] = tt.err
			}
			f.want(dws.Unmounted)
			f.reconcile()
			got := ""
			for line := range strings.Lines(out.String()) {
				// removeLeftTargets retries, and logs that at level debug.
				if strings.Contains(line, " path=") && strings.Contains(line, " left=") {
					got += line
				}
			}
			if !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") || strings.Count(got, "\n") > 1 {
				t.Errorf("logged %q, want %q", got, tt.want)
			}
		})
	}
}
