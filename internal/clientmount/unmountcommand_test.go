package clientmount

import (
	"errors"
	"slices"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// Without an unmount command in the profile, "unmounted" is reported after umount
// has run and not before, and a ClientMount is not let go while it is mounted.
func TestNoUnmountCommand(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeGFS2, dws.TypeRaw, dws.TypeLustre} {
		for name, release := range map[string]func(*bench){
			"unmounted": func(b *bench) { b.want(dws.Unmounted) },
			"deleted":   (*bench).delete,
		} {
			t.Run(typ+"/"+name, func(t *testing.T) {
				b := newBench(t, typ)
				d := &b.server.profile.Data
				d.XFS.FileSystem.Compute.Unmount, d.GFS2.FileSystem.Compute.Unmount, d.Raw.FileSystem.Compute.Unmount = "", "", ""
				d.Lustre.Client.CommandLines.Unmount = ""
				if res := b.reconcile(); res.failed || !b.machine.mounted(testPath) {
					t.Fatalf("not mounted: %+v", res)
				}
				b.machine.fail["umount "+testPath] = errors.New("target is busy")
				release(b)
				res := b.reconcile()
				if cm := b.server.object(); !res.failed || res.finished || cm == nil || cm.Status.AllReady {
					t.Fatalf("success although it is mounted: %+v, object %+v", res, cm)
				}
				delete(b.machine.fail, "umount "+testPath)
				if res := b.reconcile(); res.failed || b.machine.mounted(testPath) {
					t.Errorf("still mounted: %+v", res)
				}
				if !slices.Contains(b.machine.done(), "umount "+testPath) {
					t.Errorf("umount did not run: %q", b.machine.done())
				}
			})
		}
	}
}
