package plan

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Every value that reaches a command, a path or a shell line is refused when it
// carries syntax, and the error says which value.
func TestHostileData(t *testing.T) {
	fields := []struct {
		name string
		typ  string
		set  func(*dws.ClientMount, string)
	}{
		{"label " + api.LabelJobID, dws.TypeXFS, func(cm *dws.ClientMount, v string) { cm.Labels[api.LabelJobID] = v }},
		{"label " + api.LabelTargetDirectiveIndex, dws.TypeXFS, func(cm *dws.ClientMount, v string) { cm.Labels[api.LabelTargetDirectiveIndex] = v }},
		{"label " + api.LabelTargetOwnerUID, dws.TypeGFS2, func(cm *dws.ClientMount, v string) { cm.Labels[api.LabelTargetOwnerUID] = v }},
		{"label " + api.LabelWorkflowUID, dws.TypeLustre, func(cm *dws.ClientMount, v string) { cm.Labels[api.LabelWorkflowUID] = v }},
		{"spec.mounts[0].mountPath", dws.TypeXFS, func(cm *dws.ClientMount, v string) { cm.Spec.Mounts[0].MountPath = "/mnt/x/" + v }},
		{"spec.mounts[0].mountPath", dws.TypeLustre, func(cm *dws.ClientMount, v string) { cm.Spec.Mounts[0].MountPath = "/mnt/x/" + v }},
		{"spec.mounts[0].type", dws.TypeXFS, func(cm *dws.ClientMount, v string) { cm.Spec.Mounts[0].Type = v }},
		{"spec.mounts[0].device.type", dws.TypeXFS, func(cm *dws.ClientMount, v string) { cm.Spec.Mounts[0].Device.Type = v }},
		{"spec.mounts[0].device.deviceReference.objectReference.name", dws.TypeXFS, func(cm *dws.ClientMount, v string) {
			cm.Spec.Mounts[0].Device.DeviceReference.ObjectReference.Name = v
		}},
		{"spec.mounts[0].device.deviceReference.objectReference.namespace", dws.TypeGFS2, func(cm *dws.ClientMount, v string) {
			cm.Spec.Mounts[0].Device.DeviceReference.ObjectReference.Namespace = v
		}},
		{"spec.mounts[0].device.lustre.fileSystemName", dws.TypeLustre, func(cm *dws.ClientMount, v string) {
			cm.Spec.Mounts[0].Device.Lustre.FileSystemName = v
		}},
		{"spec.mounts[0].device.lustre.mgsAddresses", dws.TypeLustre, func(cm *dws.ClientMount, v string) {
			cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = v
		}},
		{"spec.mounts[0].device.lvm.nvmeInfo[0].namespaceID", dws.TypeXFS, func(cm *dws.ClientMount, v string) {
			cm.Spec.Mounts[0].Device.LVM.NVMeInfo[0].NamespaceID = v
		}},
	}
	values := []string{
		"a;b", "a b", "a\nb", "a\x00b", "$(a)", "`a`", "$A", "${A}", "a|b", "a&b", "a>b", "a'b", `a"b`, `a\b`, "a*b", "a?b",
		"a#b", "a!b", "a~b", "(a)", "{a}", "[a]", "a\tb", "a\x1b[0m", "é", "\u202e", "\xff", strings.Repeat("a", 5000) + ";",
	}
	for _, f := range fields {
		for _, v := range values {
			t.Run(f.name+"/"+text.Cut(v, 80), func(t *testing.T) {
				cm := clientMount(f.typ)
				f.set(cm, v)
				plan, err := ForMount(cm, 0, template(), Options{})
				if err == nil {
					t.Fatalf("accepted:\n%s", render(plan))
				}
				wantError(t, err, dws.Fatal, f.name)
				if len(err.Error()) > 1000 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("the error is not fit to print: %q", err)
				}
			})
		}
	}
	// These would be taken for options or for other directories.
	for _, f := range fields {
		for _, v := range []string{"-a", ".."} {
			cm := clientMount(f.typ)
			f.set(cm, v)
			plan, err := ForMount(cm, 0, template(), Options{})
			if strings.HasSuffix(f.name, "mountPath") && v == "-a" {
				if err != nil { // harmless inside a path
					t.Errorf("%s: %v", f.name, err)
				}
				continue
			}
			if err == nil && !(v == ".." && strings.HasSuffix(f.name, "mgsAddresses")) {
				t.Errorf("%s accepted %q:\n%s", f.name, v, render(plan))
			}
		}
	}
}

func TestBrokenEntries(t *testing.T) {
	device := func(change func(*dws.Device)) func(*dws.Mount) {
		return func(m *dws.Mount) { change(&m.Device) }
	}
	tests := []struct {
		name   string
		typ    string
		change func(*dws.Mount)
		want   string
	}{
		{"no reference", dws.TypeXFS, device(func(d *dws.Device) { d.DeviceReference = nil }), "device.deviceReference is missing"},
		{"no reference, lustre", dws.TypeLustre, device(func(d *dws.Device) { d.DeviceReference = nil }), "device.deviceReference is missing"},
		{"no lvm", dws.TypeGFS2, device(func(d *dws.Device) { d.LVM = nil }), "device.lvm is missing"},
		{"no lustre", dws.TypeLustre, device(func(d *dws.Device) { d.Lustre = nil }), "device.lustre is missing"},
		{"nothing", dws.TypeRaw, device(func(d *dws.Device) { *d = dws.Device{} }), "device.type"},
		{"negative index", dws.TypeXFS, device(func(d *dws.Device) { d.DeviceReference.Data = -1 }), `device.deviceReference.data "-1"`},
		{"unknown type", dws.TypeXFS, func(m *dws.Mount) { m.Type = "ext4" }, `unsupported file system type "ext4"`},
		{"no type", dws.TypeXFS, func(m *dws.Mount) { m.Type = "" }, `unsupported file system type ""`},
		{"no path", dws.TypeXFS, func(m *dws.Mount) { m.MountPath = "" }, "it is empty"},
		{"no NQN", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].DeviceSerial = "" }), "nvmeInfo[0].deviceSerial"},
		{"NQN too long", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].DeviceSerial = strings.Repeat("q", 224) }), "deviceSerial"},
		{"NQN with control characters", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].DeviceSerial = "a\nb" }), `"a\nb"`},
		{"no namespace id", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].NamespaceID = "" }), "namespaceID"},
		{"namespace id too large", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].NamespaceID = "4294967296" }), "namespaceID"},
		{"negative namespace id", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo[0].NamespaceID = "-1" }), "namespaceID"},
		{"too many namespaces", dws.TypeXFS, device(func(d *dws.Device) { d.LVM.NVMeInfo = make([]dws.NVMeNamespace, maxNamespaces+1) }), "1025 entries"},
		{"empty fsname", dws.TypeLustre, device(func(d *dws.Device) { d.Lustre.FileSystemName = "" }), "fileSystemName"},
		{"long fsname", dws.TypeLustre, device(func(d *dws.Device) { d.Lustre.FileSystemName = "ninechars" }), "fileSystemName"},
		{"empty NIDs", dws.TypeLustre, device(func(d *dws.Device) { d.Lustre.MGSAddresses = "" }), "mgsAddresses"},
		{"owner that chown ignores", dws.TypeRaw, func(m *dws.Mount) { m.UserID = math.MaxUint32 }, "a number from 0 to 4294967294"},
		{"negative owner", dws.TypeXFS, func(m *dws.Mount) { m.UserID = -1 }, "userID"},
		{"group that is too large", dws.TypeXFS, func(m *dws.Mount) { m.GroupID = 1 << 32 }, "groupID"},
		{"group that chown ignores", dws.TypeRaw, func(m *dws.Mount) { m.GroupID = math.MaxUint32 }, "a number from 0 to 4294967294"},
		{"path that names itself", dws.TypeXFS, func(m *dws.Mount) { m.MountPath = "/mnt/$MOUNT_PATH" }, "$MOUNT_PATH -> $MOUNT_PATH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm := clientMount(tt.typ)
			tt.change(&cm.Spec.Mounts[0])
			_, err := ForMount(cm, 0, template(), Options{})
			severity := dws.Fatal
			if strings.Contains(tt.want, "->") {
				severity = dws.Major // a circle is Major wherever it is
			}
			wantError(t, err, severity, tt.want)
		})
	}
	for _, index := range []int{-1, 1, 99} {
		t.Run(fmt.Sprint("index ", index), func(t *testing.T) {
			_, err := ForMount(clientMount(dws.TypeXFS), index, template(), Options{})
			wantError(t, err, dws.Fatal, "no entry")
		})
	}
	_, err := ForMount(nil, 0, template(), Options{})
	wantError(t, err, dws.Fatal, "no entry")
	_, err = ForMount(clientMount(dws.TypeXFS), 0, nil, Options{})
	wantError(t, err, dws.Major, "no storage profile")
}

// Vendors write blanks into NQNs, and a number of 32 bits is a user.
func TestUnusualButGood(t *testing.T) {
	cm := clientMount(dws.TypeRaw)
	m := &cm.Spec.Mounts[0]
	m.Device.LVM.NVMeInfo[0].DeviceSerial = "nqn.2014.08.org.nvmexpress:144d144dS3    Example SSD"
	m.UserID, m.GroupID = 1<<31, 1<<32-2
	p := mustPlan(t, cm, template(), Options{})
	if p.NVMe[0].DeviceSerial != m.Device.LVM.NVMeInfo[0].DeviceSerial {
		t.Errorf("NVMe %v", p.NVMe)
	}
	for _, s := range p.Mount {
		if s.Kind == Chown && (s.UID != 1<<31 || s.GID != 1<<32-2) {
			t.Errorf("chown to %d:%d", s.UID, s.GID)
		}
	}
	m.SetPermissions, m.UserID = false, math.MaxUint32 // nothing is done with it
	mustPlan(t, cm, template(), Options{})
	delete(cm.Labels, api.LabelJobID) // the workload manager may not set it
	delete(cm.Labels, api.LabelWorkflowUID)
	mustPlan(t, cm, template(), Options{})
}
