package clientmount

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

func testObject(typ string) *dws.ClientMount {
	cm := &dws.ClientMount{}
	cm.Name, cm.Namespace, cm.UID, cm.Generation = "default-job7-0-computes", "compute-01", "aaaa-1", 1
	cm.Labels = map[string]string{
		api.LabelWorkflowName: "job7", api.LabelWorkflowUID: "11110000-0000-4000-8000-00000000000a",
		api.LabelTargetDirectiveIndex: "0", api.LabelTargetOwnerUID: "2c5d0000-0000-4000-8000-00000000000b",
		api.LabelJobID: "f9Tk", api.LabelPinnedProfileName: "job7-0", api.LabelPinnedProfileNamespace: "default",
	}
	m := dws.Mount{MountPath: testPath, Type: typ, TargetType: "directory"}
	ref := &dws.ReferenceDevice{ObjectReference: dws.ObjectReference{Kind: "NnfNodeStorage", Name: "default-job7-0-0", Namespace: "rabbit-01"}, Data: 3}
	m.Device = dws.Device{Type: dws.DeviceLVM, DeviceReference: ref, LVM: &dws.LVMDevice{DeviceType: "nvme",
		NVMeInfo: []dws.NVMeNamespace{{DeviceSerial: "nqn.2014-08.org.example:disk0", NamespaceID: "12"}}}}
	switch typ {
	case dws.TypeLustre:
		m.Device = dws.Device{Type: dws.DeviceLustre, DeviceReference: ref, Lustre: &dws.LustreDevice{FileSystemName: "job7fs", MGSAddresses: "10.1.1.2@tcp"}}
	case dws.TypeRaw:
		m.TargetType, m.SetPermissions, m.UserID, m.GroupID = "file", true, 1001, 1002
	}
	cm.Spec = dws.ClientMountSpec{Node: "compute-01", DesiredState: dws.Mounted, Mounts: []dws.Mount{m}}
	return cm
}

// testProfile is the shipped template with a hook at each place.
func testProfile() *nnf.StorageProfile {
	p := &nnf.StorageProfile{}
	p.Name, p.Namespace, p.Data.Pinned = "job7-0", "default", true
	for _, s := range []*nnf.Storage{&p.Data.Raw, &p.Data.XFS, &p.Data.GFS2} {
		b, f := &s.BlockDevice, &s.FileSystem
		b.SharedVG = true
		b.Compute.LVChange.Activate, b.Compute.LVChange.Deactivate = "--activate y $VG_NAME/$LV_NAME", "--activate n $VG_NAME/$LV_NAME"
		b.Compute.User.PreActivate, b.Compute.User.PostDeactivate = []string{"pre-activate $JOBID"}, []string{"post-deactivate"}
		f.Compute.Mount, f.Compute.Unmount = "$DEVICE $MOUNT_PATH", "$MOUNT_PATH"
		f.Compute.User.PostMount, f.Compute.User.PreUnmount = []string{"post-mount"}, []string{"pre-unmount"}
	}
	p.Data.Raw.FileSystem.Compute.Mount = "-o bind $DEVICE $MOUNT_PATH"
	p.Data.GFS2.BlockDevice.Compute.VGChange.LockStart, p.Data.GFS2.BlockDevice.Compute.VGChange.LockStop = "--lock-start $VG_NAME", "--lock-stop $VG_NAME"
	l := &p.Data.Lustre.Client.CommandLines
	l.Mount, l.Unmount = "$MGS_NID:/$FS_NAME $MOUNT_PATH", "$MOUNT_PATH"
	l.PreMount, l.PostUnmount = []string{"pre-mount"}, []string{"post-unmount"}
	return p
}

// bench is one reconciler on fakes.
type bench struct {
	t       *testing.T
	machine *fakeMachine
	server  *fakeServer
	rec     *reconciler
	work    *work
}

func newBench(t *testing.T, typ string) *bench {
	b := &bench{t: t, machine: newFakeMachine(), server: newFakeServer(testObject(typ), testProfile())}
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b.restart(records)
	return b
}

// restart makes a new reconciler that knows only what is on disk.
func (b *bench) restart(records *Records) {
	c := New(Options{
		Node: "compute-01", Client: b.server, Machine: b.machine, Records: records, Mounts: MountsResource("v1alpha7"),
		Limits: Limits{Command: time.Minute, Hook: time.Minute, DeviceRetries: 3, RetryMax: 30 * time.Second}, Log: slog.New(slog.DiscardHandler),
	})
	b.rec = c.rec
	// No loop runs here.
	b.rec.released, b.rec.registry.freed = nil, nil
	b.rec.registry.alive = func(string, string) bool { return true }
	b.rec.progressAfter = 0
	b.work = &work{}
}

// reconcile runs one attempt on the object as the server has it now.
func (b *bench) reconcile() result {
	cm := b.server.object()
	if cm == nil {
		b.t.Fatal("the object is gone")
	}
	return b.rec.reconcile(context.Background(), context.Background(), b.work, cm)
}

func (b *bench) want(state dws.State) {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	b.server.cm.Spec.DesiredState = state
	b.server.cm.Generation++
}

func (b *bench) delete() {
	b.server.mu.Lock()
	defer b.server.mu.Unlock()
	now := metav1.Now()
	b.server.cm.DeletionTimestamp = &now
	b.server.cm.Generation++
}

func (b *bench) expect(what string, got, want []string) {
	b.t.Helper()
	if !slices.Equal(got, want) {
		b.t.Fatalf("%s:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

// task is the work on an object with this uid.
func (b *bench) task(uid string) *task {
	return &task{reconciler: b.rec, uid: uid, ctx: b.t.Context(), steps: b.t.Context(), log: b.rec.log}
}
