package plan

import (
	"slices"
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
		{"inner path first", mounts("/a/b", "/a"), `spec.mounts[0].mountPath "/a/b" is below spec.mounts[1].mountPath "/a", which is mounted later and would hide it: list the outer path first`},
		{"inner path first, with variables", mounts("/a/$X/b", "/a/$X"), "list the outer path first"},
		{"a name that starts alike", mounts("/a/bc", "/a/b"), ""},
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
	const file = TargetFile
	type entry struct{ path, target string }
	tests := []struct {
		name    string
		entries []entry // an empty path = no plan
		want    string  // empty = accepted
	}{
		{"different", []entry{{}, {"/a", ""}, {}, {"/b", ""}}, ""},
		{"same", []entry{{}, {"/a", ""}, {"/a", ""}}, `spec.mounts[1].mountPath and spec.mounts[2].mountPath are the same path "/a"`},
		{"same, not side by side", []entry{{"/a", ""}, {"/a/b", ""}, {"/a-", ""}, {"/a/b", ""}}, "spec.mounts[1].mountPath and spec.mounts[3].mountPath are the same path"},
		{"outer first", []entry{{"/a", ""}, {"/a/b", ""}, {"/a/b/c/d", ""}}, ""},
		{"outer first, others between", []entry{{"/a", ""}, {"/c", ""}, {"/a-b", ""}, {"/a/b", ""}}, ""},
		{"inner first", []entry{{"/a/b", ""}, {"/a", ""}}, `spec.mounts[0].mountPath "/a/b" is below spec.mounts[1].mountPath "/a"`},
		{"inner first, levels between", []entry{{"/a/b/c/d", ""}, {"/a", ""}}, "list the outer path first"},
		{"inner first, others between", []entry{{"/a/b", ""}, {"/a-b", ""}, {}, {"/a.b", ""}, {"/a", ""}}, `spec.mounts[0].mountPath "/a/b" is below spec.mounts[4].mountPath "/a"`},
		{"three levels, the middle one last", []entry{{"/a", ""}, {"/a/b/c", ""}, {"/a/b", ""}}, `spec.mounts[1].mountPath "/a/b/c" is below spec.mounts[2].mountPath "/a/b"`},
		{"a name that starts alike", []entry{{"/a/bc", ""}, {"/a/b", ""}}, ""},
		{"below a file", []entry{{"/a", file}, {"/a/b", ""}}, `spec.mounts[1].mountPath "/a/b" is below spec.mounts[0].mountPath "/a", whose mount target is a file`},
		{"below a file, listed first", []entry{{"/a/b", file}, {"/a", file}}, "a file cannot hold a directory"},
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
				t.Error("the plans were put in another order")
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
