package plan

import (
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

func TestVolume(t *testing.T) {
	elsewhere := func(cm *dws.ClientMount, _ *nnf.StorageProfile, _ *Options) {
		cm.Spec.Mounts[0].MountPath = "/mnt/elsewhere"
	}
	tests := []struct {
		name   string
		typ    string
		change func(*dws.ClientMount, *nnf.StorageProfile, *Options)
		want   string
	}{
		{"xfs", dws.TypeXFS, nil, "lvm:" + ownerUID + "_0/lv-3"},
		{"the same at another path", dws.TypeXFS, elsewhere, "lvm:" + ownerUID + "_0/lv-3"},
		{"the same as a raw device", dws.TypeRaw, nil, "lvm:" + ownerUID + "_0/lv-3"},
		{"gfs2 with its own group", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
			p.Data.GFS2.BlockDevice.SharedVG = false
		}, "lvm:" + ownerUID + "_0_3/lv"},
		{"other directive", dws.TypeXFS, func(cm *dws.ClientMount, _ *nnf.StorageProfile, _ *Options) {
			cm.Labels[api.LabelTargetDirectiveIndex] = "1"
		}, "lvm:" + ownerUID + "_1/lv-3"},
		{"mock", dws.TypeXFS, func(_ *dws.ClientMount, _ *nnf.StorageProfile, o *Options) { o.Mode = ModeMock }, "lvm:" + ownerUID + "_0/lv-3"},
		{"lustre", dws.TypeLustre, nil, "lustre:10.1.1.2@tcp0,10.1.1.3@tcp0:/job7fs"},
		{"lustre, written differently", dws.TypeLustre, func(cm *dws.ClientMount, _ *nnf.StorageProfile, _ *Options) {
			cm.Spec.Mounts[0].Device.Lustre.MGSAddresses = "10.1.1.3@tcp0,10.1.1.2"
		}, "lustre:10.1.1.2@tcp0,10.1.1.3@tcp0:/job7fs"},
		{"lustre, other file system", dws.TypeLustre, func(cm *dws.ClientMount, _ *nnf.StorageProfile, _ *Options) {
			cm.Spec.Mounts[0].Device.Lustre.FileSystemName = "job8fs"
		}, "lustre:10.1.1.2@tcp0,10.1.1.3@tcp0:/job8fs"},
		{"kind", dws.TypeXFS, func(_ *dws.ClientMount, _ *nnf.StorageProfile, o *Options) { o.Mode = ModeKind }, "link:/mnt/nnf/default-job7-0-xfs-0-3"},
		{"kind, lustre", dws.TypeLustre, func(_ *dws.ClientMount, _ *nnf.StorageProfile, o *Options) { o.Mode = ModeKind }, "link:/mnt/nnf/job7-0-0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cm, profile, o := clientMount(tt.typ), template(), Options{}
			if tt.change != nil {
				tt.change(cm, profile, &o)
			}
			p := mustPlan(t, cm, profile, o)
			if got := p.Volume(); got != tt.want {
				t.Errorf("Volume() = %q, want %q", got, tt.want)
			}
			if got := stored(t, p).Volume(); got != tt.want {
				t.Errorf("Volume() of the stored plan = %q, want %q", got, tt.want)
			}
		})
	}
}

// The resolved path is used everywhere, and system directories stay denied. The roots do
// not apply to it, because root created the link.
func TestRealPath(t *testing.T) {
	const realPath = "/var" + jobPath
	for _, typ := range []string{dws.TypeXFS, dws.TypeLustre} {
		profile := template()
		hooked(profile)
		p := mustPlan(t, clientMount(typ), profile, Options{Roots: []string{"/mnt"}, Real: map[string]string{jobPath: realPath}})
		if p.Path != realPath {
			t.Errorf("%s: path %q, want %q", typ, p.Path, realPath)
		}
		if text := render(p); strings.Contains(text, " "+jobPath) || strings.Contains(text, `"`+jobPath) {
			t.Errorf("%s: the path with the link is still used:\n%s", typ, text)
		}
		p = mustPlan(t, clientMount(typ), profile, Options{Roots: []string{"/mnt"}, Real: map[string]string{"/mnt/other": "/var/mnt/other"}})
		if p.Path != jobPath {
			t.Errorf("%s: the real path of another mount is used: %q", typ, p.Path)
		}
	}
	for _, bad := range []string{"/etc/cron.d", "/var/run/x", "/var", "/", "relative", "", "/srv/a b", "/srv/../etc"} {
		_, err := ForMount(clientMount(dws.TypeXFS), 0, template(), Options{Roots: []string{"/mnt"}, Real: map[string]string{jobPath: bad}})
		wantError(t, err, dws.Fatal, "spec.mounts[0].mountPath", text.Quote(jobPath), "symbolic link", text.Quote(bad))
	}
	// The path in the object is checked first.
	_, err := ForMount(clientMount(dws.TypeXFS), 0, template(), Options{Roots: []string{"/l"}, Real: map[string]string{jobPath: "/l/x"}})
	wantError(t, err, dws.Fatal, "below /l")
}

func TestModes(t *testing.T) {
	_, err := ForMount(clientMount(dws.TypeXFS), 0, template(), Options{Mode: "king"})
	wantError(t, err, dws.Major, `unknown mode "king"`)

	cm := clientMount(dws.TypeXFS)
	cm.Spec.Mounts[0].Device.DeviceReference.ObjectReference.Name = ""
	mustPlan(t, cm, template(), Options{Mode: ModeReal}) // it is used only for $TEMP_DIR
	_, err = ForMount(cm, 0, template(), Options{Mode: ModeKind})
	wantError(t, err, dws.Fatal, "objectReference.name")

	cm = clientMount(dws.TypeXFS)
	cm.Spec.Mounts[0].MountPath = "/mnt/nnf/default-job7-0-xfs-0-3"
	_, err = ForMount(cm, 0, template(), Options{Mode: ModeKind})
	wantError(t, err, dws.Fatal, "itself")
	cm.Spec.Mounts[0].MountPath = "/etc/x"
	for _, mode := range []string{ModeReal, ModeKind, ModeMock} {
		_, err = ForMount(cm, 0, template(), Options{Mode: mode})
		wantError(t, err, dws.Fatal, "/etc")
	}
}

func TestRoots(t *testing.T) {
	cm := clientMount(dws.TypeXFS)
	mustPlan(t, cm, template(), Options{Roots: []string{"/mnt/nnf"}})
	_, err := ForMount(cm, 0, template(), Options{Roots: []string{"/l"}})
	wantError(t, err, dws.Fatal, `spec.mounts[0].mountPath "`+jobPath+`" is refused`, "mount.roots", "only below /l")
	if !errors.Is(err, ErrOutsideRoots) {
		t.Errorf("%v is not ErrOutsideRoots", err)
	}
	// A root cannot allow a system directory.
	cm.Spec.Mounts[0].MountPath = "/etc/x"
	_, err = ForMount(cm, 0, template(), Options{Roots: []string{"/etc"}})
	wantError(t, err, dws.Fatal, "on or below /etc")
}

// The planner does not change its input, and the plan does not share memory with it.
func TestInputIsNotShared(t *testing.T) {
	cm, profile := clientMount(dws.TypeXFS), template()
	p := mustPlan(t, cm, profile, Options{})
	if !reflect.DeepEqual(cm, clientMount(dws.TypeXFS)) || !reflect.DeepEqual(profile, template()) {
		t.Error("the input was changed")
	}
	before := render(p)
	cm.Spec.Mounts[0].Device.LVM.NVMeInfo[0].NamespaceID = "99"
	if render(p) != before {
		t.Error("the plan changed with the object")
	}
}

func TestFallback(t *testing.T) {
	tests := map[string]string{
		dws.TypeRaw:    "unmount deactivate",
		dws.TypeXFS:    "unmount deactivate",
		dws.TypeGFS2:   "unmount deactivate lockStop",
		dws.TypeLustre: "unmount",
	}
	for typ, want := range tests {
		t.Run(typ, func(t *testing.T) {
			p, err := Fallback(clientMount(typ), 0, true, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(p.Mount) != 0 || names(p.Unmount) != want {
				t.Errorf("mount %q, unmount %q, want %q", names(p.Mount), names(p.Unmount), want)
			}
			// It undoes what the shipped profile does.
			if same := mustPlan(t, clientMount(typ), template(), Options{}); render(&Plan{Unmount: p.Unmount}) != render(&Plan{Unmount: same.Unmount}) {
				t.Errorf("unmount differs from the shipped profile's:\n%s", render(p))
			}
		})
	}
	cm := clientMount(dws.TypeXFS)
	cm.Spec.Mounts[0].Device.DeviceReference = nil
	_, err := Fallback(cm, 0, true, Options{})
	wantError(t, err, dws.Fatal, "missing")
}
