package volume

import (
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
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
		{"other node", func(cm *dws.ClientMount) { cm.Spec.Node = "compute-02" }, `is for node "compute-02", this is "compute-01"`},
		{"no node", func(cm *dws.ClientMount) { cm.Spec.Node = "" }, `is for node "", this`},
		{"node with control characters", func(cm *dws.ClientMount) { cm.Spec.Node = "x\n\x1b[2J" }, `"x\n\x1b[2J"`},
		{"unknown state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "gone" }, "invalid desired state gone"},
		{"no state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "" }, "invalid desired state "},
		{"hostile state", func(cm *dws.ClientMount) { cm.Spec.DesiredState = "a\nb" }, `invalid desired state a\nb`},
		{"no mounts", mounts(), "spec.mounts is empty"},
		{"same path", mounts("/a", "/b", "/a"), `spec.mounts[0].mountPath and spec.mounts[2].mountPath are the same path "/a"`},
		{"same path, spelt differently", mounts("/a/b", "//a//b/"), "same path"},
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
	if err := CheckPlans([]*Plan{nil, {Index: 1, Path: "/a"}, nil, {Index: 3, Path: "/b"}}); err != nil {
		t.Errorf("refused: %v", err)
	}
	err := CheckPlans([]*Plan{nil, {Index: 1, Path: "/a"}, {Index: 2, Path: "/a"}})
	wantError(t, err, dws.Fatal, "spec.mounts[1].mountPath and spec.mounts[2].mountPath")
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
		{"way out of the request path", func(l map[string]string) { l[api.LabelPinnedProfileName] = "../secrets" }, `"../secrets" is refused`},
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
	// Others match this text.
	if want := "Expected pinned NnfStorageProfile, but it was not pinned: job7-0"; err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
}
