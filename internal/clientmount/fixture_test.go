package clientmount

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/kube"
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

// testProfile returns the shipped template with a hook in each list.
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

// fixture is one reconciler with fakes.
type fixture struct {
	t       *testing.T
	machine *fakeMachine
	server  *fakeServer
	rec     *reconciler
	work    *work
}

func newFixture(t *testing.T, typ string) *fixture {
	f := &fixture{t: t, machine: newFakeMachine(), server: newFakeServer(testObject(typ), testProfile())}
	records, err := OpenRecords(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f.restart(records)
	return f
}

// newMounted returns a fixture whose object is mounted.
func newMounted(t *testing.T, typ string) *fixture {
	t.Helper()
	f := newFixture(t, typ)
	if res := f.reconcile(); res.failed {
		t.Fatalf("%+v %s", res, describe(&f.server.object().Status))
	}
	return f
}

func (f *fixture) options(records *Records) Options {
	return Options{
		Node: "compute-01", Client: f.server, Host: f.machine, Records: records,
		Limits: Limits{Command: time.Minute, Hook: time.Minute, DeviceRetries: 3, RetryMax: 30 * time.Second}, Log: slog.New(slog.DiscardHandler),
	}
}

// versionedController returns a controller that has found the served version.
func versionedController(o Options) *Controller {
	c := NewController(o)
	r := Resource("v1alpha7")
	c.mounts.Store(&r)
	return c
}

// restart replaces the reconciler with a new one that has only the records on disk.
func (f *fixture) restart(records *Records) {
	f.rec = versionedController(f.options(records)).rec
	// There is no loop.
	f.rec.released, f.rec.registry.freed = nil, nil
	f.rec.registry.alive = func(string, string) bool { return true }
	f.rec.progressAfter = 0
	f.work = &work{}
}

// reconcile runs one attempt with the current object of the server.
func (f *fixture) reconcile() result {
	cm := f.server.object()
	if cm == nil {
		f.t.Fatal("the object is gone")
	}
	return f.rec.reconcile(context.Background(), context.Background(), f.work, cm)
}

func (f *fixture) want(state dws.State) {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	f.server.cm.Spec.DesiredState = state
	f.server.cm.Generation++
}

func (f *fixture) delete() {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	now := metav1.Now()
	f.server.cm.DeletionTimestamp = &now
	f.server.cm.Generation++
}

func (f *fixture) expect(what string, got, want []string) {
	f.t.Helper()
	if !slices.Equal(got, want) {
		f.t.Fatalf("%s:\n got  %s\n want %s", what, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
	}
}

// task returns a task for the object with this uid.
func (f *fixture) task(uid string) *task {
	return &task{reconciler: f.rec, uid: uid, ctx: f.t.Context(), steps: f.t.Context(), log: f.rec.log}
}

// loop runs a controller with fakes.
type loop struct {
	*fixture
	kube.Handler[dws.ClientMount]
	c      *Controller
	cancel context.CancelFunc
	ended  func() error // waits until Run has returned
	lines  []string
	synced int
}

// startLoop starts a controller with the fakes of a fixture. It must be called in a bubble
// of testing/synctest.
func startLoop(f *fixture, change func(*Options)) *loop {
	l := &loop{fixture: f}
	o := f.options(f.rec.records)
	o.Limits.DeviceRetries = 0
	o.ShutdownTimeout = 10 * time.Second
	o.Status, o.Synced = func(s string) { l.lines = append(l.lines, s) }, func() { l.synced++ }
	if change != nil {
		change(&o)
	}
	l.c = versionedController(o)
	l.Handler = l.c.handler()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	l.cancel, l.ended = cancel, sync.OnceValue(func() error { return <-ended })
	go func() { ended <- l.c.Run(ctx) }()
	return l
}

// stop may be called more than once.
func (l *loop) stop() error {
	l.cancel()
	return l.ended()
}

// runLoop runs a test with the loop of a new fixture in a bubble of testing/synctest, and
// stops the loop.
func runLoop(t *testing.T, typ string, change func(*Options), test func(t *testing.T, l *loop)) {
	t.Helper()
	newFixture(t, typ).runLoop(t, change, test)
}

func (f *fixture) runLoop(t *testing.T, change func(*Options), test func(t *testing.T, l *loop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		l := startLoop(f, change)
		test(t, l)
		if err := l.stop(); err != nil {
			t.Error(err)
		}
	})
}

// beside returns a fixture for a second object, with its own server, the same machine and
// the same reconciler.
func (f *fixture) beside(name string, uid types.UID, change func(*dws.ClientMount)) *fixture {
	cm := testObject(f.server.cm.Spec.Mounts[0].Type)
	cm.Name, cm.UID = name, uid
	if change != nil {
		change(cm)
	}
	other := &fixture{t: f.t, machine: f.machine, server: newFakeServer(cm, testProfile()), work: &work{}}
	rec := *f.rec
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

// edit changes the object and its generation.
func (f *fixture) edit(change func(*dws.ClientMount)) {
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	change(f.server.cm)
	f.server.cm.Generation++
}

func twoMounts(cm *dws.ClientMount) {
	second := cm.Spec.Mounts[0]
	second.MountPath = "/mnt/nnf/second"
	cm.Spec.Mounts = append(cm.Spec.Mounts, second)
}

// again creates the object again with the same name, while no daemon runs.
func (f *fixture) again(uid types.UID) {
	f.server.cm = testObject(f.server.cm.Spec.Mounts[0].Type)
	f.server.cm.UID = uid
	f.machine.done()
	f.restart(f.rec.records)
	f.rec.registry.alive = func(uid, _ string) bool { return uid == string(f.server.cm.UID) }
}

// attempt returns an attempt for calls of unmountOne.
func (f *fixture) attempt() *attempt {
	cm := f.server.object()
	return &attempt{task: *f.task(string(cm.UID)), w: f.work, cm: cm}
}
