package plan

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// stored returns the plan as it is when it was kept on disk in between.
func stored(t *testing.T, p *Plan) *Plan {
	t.Helper()
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	back := new(Plan)
	if err := json.Unmarshal(text, back); err != nil {
		t.Fatal(err)
	}
	return back
}

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
		{"gfs2 with a group of its own", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
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

// The steps that give up the volume are the last ones, from the first
// preDeactivate hook on, and none of them is among the steps that mount.
func TestReleases(t *testing.T) {
	for typ, want := range map[string]string{
		dws.TypeRaw:    "preDeactivate[0] preDeactivate[1] deactivate postDeactivate[0] postDeactivate[1]",
		dws.TypeXFS:    "preDeactivate[0] preDeactivate[1] deactivate postDeactivate[0] postDeactivate[1]",
		dws.TypeGFS2:   "preDeactivate[0] preDeactivate[1] deactivate lockStop postDeactivate[0] postDeactivate[1]",
		dws.TypeLustre: "",
	} {
		t.Run(typ, func(t *testing.T) {
			profile := template()
			hooked(profile)
			p := stored(t, mustPlan(t, clientMount(typ), profile, Options{}))
			var got []Step
			for _, s := range p.Unmount {
				if s.Releases() {
					got = append(got, s)
				}
			}
			if names(got) != want {
				t.Errorf("releasing steps %q, want %q", names(got), want)
			}
			if !strings.HasSuffix(names(p.Unmount), want) {
				t.Errorf("the releasing steps are not the last ones of %q", names(p.Unmount))
			}
			for _, s := range p.Mount {
				if s.Releases() {
					t.Errorf("mount step %s releases the volume", s.Name)
				}
			}
		})
	}
}

// A path whose symbolic links were resolved is used everywhere, and the system's
// own files stay out of reach. The roots do not apply to it: root made the link.
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
		wantError(t, err, dws.Fatal, "spec.mounts[0].mountPath", quote(jobPath), "symbolic link", quote(bad))
	}
	// The path as it is written is judged first.
	_, err := ForMount(clientMount(dws.TypeXFS), 0, template(), Options{Roots: []string{"/l"}, Real: map[string]string{jobPath: "/l/x"}})
	wantError(t, err, dws.Fatal, "below /l")
}
