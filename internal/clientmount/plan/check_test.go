package plan

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

func TestCheckObject(t *testing.T) {
	mounts := func(paths ...string) func(*dws.ClientMount) {
		return func(cm *dws.ClientMount) {
			cm.Spec.Mounts = nil
			for _, p := range paths {
				cm.Spec.Mounts = append(cm.Spec.Mounts, dws.Mount{MountPath: p})
			}
		}
	}
	tests := []struct {
		name   string
		change func(*dws.ClientMount)
		want   string // empty = accepted
	}{
		{"good", func(*dws.ClientMount) {}, ""},
		{"unmounted", func(cm *dws.ClientMount) { cm.Spec.DesiredState = dws.Unmounted }, ""},
		{"two paths", mounts("/a", "/b"), ""},
		{"one below the other", mounts("/a", "/a/b"), ""},
		{"inner path first", mounts("/a/b", "/a"), `spec.mounts[0].mountPath "/a/b" is below spec.mounts[1].mountPath "/a", which is mounted later and would hide it: list the outer path first`},
		{"inner path first, with variables", mounts("/a/$X/b", "/a/$X"), "list the outer path first"},
		{"a name with the same prefix", mounts("/a/bc", "/a/b"), ""},
		{"other node", func(cm *dws.ClientMount) { cm.Spec.Node = "compute-02" }, `is for node "compute-02", but this is node "compute-01"`},
		{"no node", func(cm *dws.ClientMount) { cm.Spec.Node = "" }, `is for node "", but this`},
		{"node with control characters", func(cm *dws.ClientMount) { cm.Spec.Node = "x\n\x1b[2J" }, `"x\n\x1b[2J"`},
		{"unknown state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "gone" }, "invalid desired state gone"},
		{"no state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "" }, "invalid desired state "},
		{"hostile state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "a\nb" }, `invalid desired state a\nb`},
		{"no mounts", mounts(), "spec.mounts is empty"},
		{"same path", mounts("/a", "/b", "/a"), `spec.mounts[0].mountPath and spec.mounts[2].mountPath are the same path "/a"`},
		{"same path, written differently", mounts("/a/b", "//a//b/"), "same path"},
		{"same variables", mounts("/$X", "/$X/"), "same path"},
		{"too many", mounts(make([]string, maxMounts+1)...), "1025 entries"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm := clientMount(dws.TypeXFS)
			tt.change(cm)
			err := CheckObject(cm, "compute-01")
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, dws.Fatal, tt.want)
		})
	}
}

func TestCheckPlans(t *testing.T) {
	const file = TargetFile
	type entry struct{ path, target string }
	tests := []struct {
		name    string
		entries []entry // an empty path = no plan
		want    string  // empty = accepted
	}{
		{"different", []entry{{}, {"/a", ""}, {}, {"/b", ""}}, ""},
		{"same", []entry{{}, {"/a", ""}, {"/a", ""}}, `spec.mounts[1].mountPath and spec.mounts[2].mountPath are the same path "/a"`},
		{"same, not adjacent", []entry{{"/a", ""}, {"/a/b", ""}, {"/a-", ""}, {"/a/b", ""}}, "spec.mounts[1].mountPath and spec.mounts[3].mountPath are the same path"},
		{"outer first", []entry{{"/a", ""}, {"/a/b", ""}, {"/a/b/c/d", ""}}, ""},
		{"outer first, others between", []entry{{"/a", ""}, {"/c", ""}, {"/a-b", ""}, {"/a/b", ""}}, ""},
		{"inner first", []entry{{"/a/b", ""}, {"/a", ""}}, `spec.mounts[0].mountPath "/a/b" is below spec.mounts[1].mountPath "/a"`},
		{"inner first, levels between", []entry{{"/a/b/c/d", ""}, {"/a", ""}}, "list the outer path first"},
		{"inner first, others between", []entry{{"/a/b", ""}, {"/a-b", ""}, {}, {"/a.b", ""}, {"/a", ""}}, `spec.mounts[0].mountPath "/a/b" is below spec.mounts[4].mountPath "/a"`},
		{"three levels, the middle one last", []entry{{"/a", ""}, {"/a/b/c", ""}, {"/a/b", ""}}, `spec.mounts[1].mountPath "/a/b/c" is below spec.mounts[2].mountPath "/a/b"`},
		{"a name with the same prefix", []entry{{"/a/bc", ""}, {"/a/b", ""}}, ""},
		{"below a file", []entry{{"/a", file}, {"/a/b", ""}}, `spec.mounts[1].mountPath "/a/b" is below spec.mounts[0].mountPath "/a", whose mount target is a file`},
		{"below a file, listed first", []entry{{"/a/b", file}, {"/a", file}}, "whose mount target is a file"},
		{"a file below a directory", []entry{{"/a", ""}, {"/a/b", file}}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var plans []*Plan
			for i, e := range tt.entries {
				if e.path == "" {
					plans = append(plans, nil)
					continue
				}
				plans = append(plans, &Plan{Index: i, Path: e.path, Target: e.target})
			}
			err := CheckPlans(plans)
			if tt.want == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			wantError(t, err, dws.Fatal, tt.want)
			if !slices.EqualFunc(plans, tt.entries, func(p *Plan, e entry) bool { return p == nil && e.path == "" || p != nil && p.Path == e.path }) {
				t.Error("the order of the plans has changed")
			}
		})
	}
}

func TestProfileRef(t *testing.T) {
	cm := clientMount(dws.TypeXFS)
	namespace, name, err := ProfileRef(cm)
	if namespace != "default" || name != "job7-0" || err != nil {
		t.Errorf("ProfileRef = %q, %q, %v", namespace, name, err)
	}
	tests := []struct {
		name   string
		change func(map[string]string)
		want   string
	}{
		{"no labels", func(l map[string]string) { clear(l) }, "unable to find labels"},
		{"no name", func(l map[string]string) { delete(l, api.LabelPinnedProfileName) },
			"unable to find nnf.cray.hpe.com/pinned_storage_profile_name label"},
		{"no namespace", func(l map[string]string) { delete(l, api.LabelPinnedProfileNamespace) },
			"unable to find nnf.cray.hpe.com/pinned_storage_profile_namespace label"},
		{"empty name", func(l map[string]string) { l[api.LabelPinnedProfileName] = "" }, "unable to find"},
		{"escape from the request path", func(l map[string]string) { l[api.LabelPinnedProfileName] = "../secrets" }, `"../secrets" is refused`},
		{"query", func(l map[string]string) { l[api.LabelPinnedProfileNamespace] = "a?b" }, `"a?b" is refused`},
		{"dots", func(l map[string]string) { l[api.LabelPinnedProfileNamespace] = ".." }, `".." is refused`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm := clientMount(dws.TypeXFS)
			tt.change(cm.Labels)
			_, _, err := ProfileRef(cm)
			wantError(t, err, dws.Fatal, tt.want)
		})
	}
}

func TestCheckProfile(t *testing.T) {
	p := template()
	if err := CheckProfile(p); err != nil {
		t.Errorf("pinned profile refused: %v", err)
	}
	p.Data.Pinned = false
	err := CheckProfile(p)
	wantError(t, err, dws.Fatal)
	// Other programs match this text.
	if want := "Expected pinned NnfStorageProfile, but it was not pinned: job7-0"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
}

// Every value for a command, a path or a shell line is refused if it contains syntax, and
// the error names the field.
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
					t.Errorf("the error is not printable: %q", err)
				}
			})
		}
	}
	// These would be interpreted as options or other directories.
	for _, f := range fields {
		for _, v := range []string{"-a", ".."} {
			cm := clientMount(f.typ)
			f.set(cm, v)
			plan, err := ForMount(cm, 0, template(), Options{})
			if strings.HasSuffix(f.name, "mountPath") && v == "-a" {
				if err != nil { // harmless in a path
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
		{"owner that chown ignores", dws.TypeRaw, func(m *dws.Mount) { m.UserID = math.MaxUint32 }, "expected a number from 0 to 4294967294"},
		{"negative owner", dws.TypeXFS, func(m *dws.Mount) { m.UserID = -1 }, "userID"},
		{"group that is too large", dws.TypeXFS, func(m *dws.Mount) { m.GroupID = 1 << 32 }, "groupID"},
		{"group that chown ignores", dws.TypeRaw, func(m *dws.Mount) { m.GroupID = math.MaxUint32 }, "expected a number from 0 to 4294967294"},
		{"path that refers to itself", dws.TypeXFS, func(m *dws.Mount) { m.MountPath = "/mnt/$MOUNT_PATH" }, "$MOUNT_PATH -> $MOUNT_PATH"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm := clientMount(tt.typ)
			tt.change(&cm.Spec.Mounts[0])
			_, err := ForMount(cm, 0, template(), Options{})
			severity := dws.Fatal
			if strings.Contains(tt.want, "->") {
				severity = dws.Major // a cycle is always Major
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

// NQNs may contain blanks, and user IDs have 32 bits.
func TestUnusualValues(t *testing.T) {
	cm := clientMount(dws.TypeRaw)
	m := &cm.Spec.Mounts[0]
	m.Device.LVM.NVMeInfo[0].DeviceSerial = "nqn.2014.08.org.nvmexpress:144d144dS3    Example SSD"
	m.UserID, m.GroupID = 1<<31, 1<<32-2
	p := mustPlan(t, cm, template(), Options{})
	if p.NVMe[0].DeviceSerial != m.Device.LVM.NVMeInfo[0].DeviceSerial {
		t.Errorf("NVMe %v", p.NVMe)
	}
	if s := p.MountStep(Chown); s == nil || s.UID != 1<<31 || s.GID != 1<<32-2 {
		t.Errorf("chown %+v", s)
	}
	m.SetPermissions, m.UserID = false, math.MaxUint32 // not used
	mustPlan(t, cm, template(), Options{})
	delete(cm.Labels, api.LabelJobID) // the workload manager may not set it
	delete(cm.Labels, api.LabelWorkflowUID)
	mustPlan(t, cm, template(), Options{})
}

func TestCheckPath(t *testing.T) {
	deep := strings.Repeat("/"+strings.Repeat("d", maxName), 15) // 3840 bytes
	tests := []struct {
		path  string
		roots []string
		want  string // clean path, or empty if refused
		why   string
	}{
		{"/mnt/nnf/a-0", nil, "/mnt/nnf/a-0", ""},
		{"//mnt//nnf/a/", nil, "/mnt/nnf/a", ""},
		{"/l/us@x:1+2=3,4%5_6.7-8", nil, "/l/us@x:1+2=3,4%5_6.7-8", ""},
		{"/mnt/...", nil, "/mnt/...", ""},
		{"/var/x", nil, "/var/x", ""},
		{"/home/user", nil, "/home/user", ""},
		{"/etcetera", nil, "/etcetera", ""},
		{"/usr2/x", nil, "/usr2/x", ""},
		{"/mnt/etc", nil, "/mnt/etc", ""},
		{deep, nil, deep, ""},

		{"", nil, "", "empty"},
		{"mnt/nnf", nil, "", "absolute"},
		{"./mnt", nil, "", "absolute"},
		{"/", nil, "", "on /"},
		{"///", nil, "", "on /"},
		{"/mnt/../etc", nil, "", ".."},
		{"/mnt/nnf/..", nil, "", ".."},
		{"/mnt/./nnf", nil, "", ".."},
		{"/mnt/a b", nil, "", "consists of"},
		{"/mnt/a\nb", nil, "", `"/mnt/a\nb"`},
		{"/mnt/a\x00", nil, "", `\x00`},
		{"/mnt/\u202ex", nil, "", `\u202e`},
		{"/mnt/a;reboot", nil, "", "consists of"},
		{"/mnt/$(reboot)", nil, "", "$"},
		{"/mnt/$HOST_COUNT/x", nil, "", "variable $HOST_COUNT is unknown"},
		{"/mnt/`reboot`", nil, "", "consists of"},
		{"/mnt/'x'", nil, "", "consists of"},
		{`/mnt/\x`, nil, "", "consists of"},
		{"/mnt/*", nil, "", "consists of"},
		{"/mnt/" + strings.Repeat("n", maxName+1), nil, "", "255"},
		{deep + "/" + strings.Repeat("e", 255), nil, "", "4095"},
		{"/etc", nil, "", "on or below /etc"},
		{"/etc/", nil, "", "on or below /etc"},
		{"//etc//pam.d", nil, "", "on or below /etc"},
		{"/usr/local/bin", nil, "", "on or below /usr"},
		{"/proc/self/root/mnt", nil, "", "on or below /proc"},
		{"/run/x", nil, "", "on or below /run"},
		{"/var/run/x", nil, "", "on or below /var/run"},
		{"/root", nil, "", "on or below /root"},
		{"/mnt", nil, "", "on /mnt itself"},
		{"/var/", nil, "", "on /var itself"},
		{"/tmp", nil, "", "on /tmp itself"},
		{"/home", nil, "", "on /home itself"},

		{"/mnt/nnf/a", []string{"/mnt/nnf"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf/a", []string{"/x", "/mnt/nnf/"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf/a", []string{"/"}, "/mnt/nnf/a", ""},
		{"/mnt/nnf", []string{"/mnt/nnf"}, "", "outside mount.roots, which allows mounts only below /mnt/nnf"},
		{"/var/spool/cron", []string{"/mnt"}, "", "outside mount.roots, which allows mounts only below /mnt"},
		{"/var/lib/rpm", []string{"/mnt"}, "", "outside mount.roots, which allows mounts only below /mnt"},
		{"/opt/x", []string{"/mnt"}, "", "/opt/x"},
		{"/mnt", []string{"/mnt"}, "", "on /mnt itself"},
		{"/mnt/nnfx/a", []string{"/mnt/nnf"}, "", "only below /mnt/nnf"},
		{"/mnt/other", []string{"/mnt/nnf", "/l"}, "", "only below /mnt/nnf, /l"},
		{"/etc/x", []string{"/etc"}, "", "on or below /etc"},
	}
	for _, tt := range tests {
		t.Run(text.Cut(tt.path, 80), func(t *testing.T) {
			got, err := checkPath("mountPath", tt.path, tt.roots)
			if tt.want != "" {
				if err != nil || got != tt.want {
					t.Errorf("checkPath = %q, %v, want %q", got, err, tt.want)
				}
				return
			}
			if err == nil {
				t.Fatalf("accepted as %q", got)
			}
			wantError(t, err, dws.Fatal, "mountPath", tt.why)
		})
	}
}

// A path that is too long is an error of the object, even if the expansion of variables
// would report an error of the profile.
func TestVeryLongPath(t *testing.T) {
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		for _, n := range []int{maxPath + 1, maxLine + 1, 1 << 20} {
			cm := clientMount(typ)
			cm.Spec.Mounts[0].MountPath = "/" + strings.Repeat("a", n-1)
			_, err := ForMount(cm, 0, template(), Options{})
			wantError(t, err, dws.Fatal, "spec.mounts[0].mountPath", pathLengthRule)
		}
	}
}
