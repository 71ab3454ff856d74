package dws

import (
	"encoding/json"
	"reflect"
	"testing"
)

// An object as written by the rabbit, with fields that this package does not define.
const object = `{
  "apiVersion": "dataworkflowservices.github.io/v1alpha7", "kind": "ClientMount",
  "metadata": {
    "name": "default-job7-0-computes", "namespace": "compute-01", "generation": 2,
    "finalizers": ["nnf.cray.hpe.com/nnf_clientmount"],
    "labels": {"nnf.cray.hpe.com/job_id": "f9Tk"}
  },
  "spec": {
    "node": "compute-01", "desiredState": "mounted", "fromTheFuture": {"a": 1},
    "mounts": [
      {"mountPath": "/mnt/a", "type": "none", "targetType": "file", "options": "bind", "setPermissions": true,
       "userID": 4294967294, "groupID": 1002, "compute": "x",
       "device": {"type": "lvm", "deviceReference": {"objectReference": {"kind": "NnfNodeStorage", "name": "n", "namespace": "rabbit-01"}, "data": 3},
        "lvm": {"deviceType": "nvme", "nvmeInfo": [{"deviceSerial": "nqn", "namespaceID": "12", "namespaceGUID": ""}]}}},
      {"mountPath": "/mnt/b", "type": "lustre", "targetType": "directory", "options": "", "setPermissions": false,
       "device": {"type": "lustre", "lustre": {"fileSystemName": "fs", "mgsAddresses": "1@tcp"},
        "deviceReference": {"objectReference": {"kind": "NnfStorage", "name": "s", "namespace": "default"}}}}
    ]
  },
  "status": {"allReady": false, "mounts": [{"state": "mounted", "ready": true}, {"state": "mounted", "ready": false}],
    "error": {"type": "Internal", "severity": "Major", "debugMessage": "d"}}
}`

func decode(t *testing.T) *ClientMount {
	t.Helper()
	c := &ClientMount{}
	if err := json.Unmarshal([]byte(object), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDecode(t *testing.T) {
	c := decode(t)
	raw, lustre := c.Spec.Mounts[0], c.Spec.Mounts[1]
	want := Mount{MountPath: "/mnt/a", UserID: 4294967294, GroupID: 1002, SetPermissions: true, Type: TypeRaw, TargetType: "file", Device: Device{
		Type:            DeviceLVM,
		LVM:             &LVMDevice{DeviceType: "nvme", NVMeInfo: []NVMeNamespace{{DeviceSerial: "nqn", NamespaceID: "12"}}},
		DeviceReference: &ReferenceDevice{ObjectReference: ObjectReference{Kind: "NnfNodeStorage", Name: "n", Namespace: "rabbit-01"}, Data: 3},
	}}
	if !reflect.DeepEqual(raw, want) {
		t.Errorf("got %+v, want %+v", raw, want)
	}
	if l := lustre.Device.Lustre; l == nil || *l != (LustreDevice{"fs", "1@tcp"}) || lustre.Device.LVM != nil {
		t.Errorf("lustre device %+v", lustre.Device)
	}
	if c.Spec.Node != "compute-01" || c.Spec.DesiredState != Mounted || c.Generation != 2 {
		t.Errorf("spec %+v", c.Spec)
	}
	if c.Label("nnf.cray.hpe.com/job_id") != "f9Tk" || c.Label("none") != "" || (&ClientMount{}).Label("none") != "" {
		t.Error("wrong labels")
	}
}

// The schema of the status requires mounts, allReady, state and ready even if they are
// false. There is no error key without an error.
func TestStatusJSON(t *testing.T) {
	got, err := json.Marshal(ClientMountStatus{Mounts: []MountStatus{{State: Unmounted}}})
	if want := `{"mounts":[{"state":"unmounted","ready":false}],"allReady":false}`; err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// A copy is equal and shares no memory: changes of the copy do not affect the original.
func TestDeepCopy(t *testing.T) {
	original := decode(t)
	c := original.DeepCopyObject().(*ClientMount)
	if !reflect.DeepEqual(c, original) {
		t.Fatalf("the copy differs: %+v", c)
	}
	c.Labels["nnf.cray.hpe.com/job_id"] = "changed"
	c.Finalizers[0] = "changed"
	m := c.Spec.Mounts
	m[0].MountPath = "changed"
	m[0].Device.LVM.DeviceType = "changed"
	m[0].Device.LVM.NVMeInfo[0].NamespaceID = "changed"
	m[0].Device.DeviceReference.Data = 99
	m[1].Device.Lustre.FileSystemName = "changed"
	c.Status.Mounts[0].Ready = false
	c.Status.Error.DebugMessage = "changed"
	if want := decode(t); !reflect.DeepEqual(original, want) {
		t.Errorf("the copy shares memory with the original: %+v", original)
	}
}

func TestDeepCopyOfEmpty(t *testing.T) {
	c := &ClientMount{}
	if out := c.DeepCopyObject(); !reflect.DeepEqual(out, c) {
		t.Errorf("got %+v", out)
	}
}

func TestSameLabels(t *testing.T) {
	a, b := decode(t), decode(t)
	if !a.SameLabels(b) || !(&ClientMount{}).SameLabels(&ClientMount{}) {
		t.Error("equal labels differ")
	}
	b.Labels["x"] = ""
	if a.SameLabels(b) || b.SameLabels(a) {
		t.Error("different labels are equal")
	}
}
