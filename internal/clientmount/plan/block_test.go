package plan

import (
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

func TestMissingNameLabels(t *testing.T) {
	for _, label := range []string{api.LabelTargetOwnerUID, api.LabelTargetDirectiveIndex} {
		cm, profile := clientMount(dws.TypeXFS), template()
		delete(cm.Labels, label)
		_, err := ForMount(cm, 0, profile, Options{})
		wantError(t, err, dws.Fatal, "unable to find "+label+" label")

		profile.Data.XFS.VariableOverride = map[string]string{"$VG_NAME": "site"}
		if p := mustPlan(t, cm, profile, Options{}); p.VG != "site" {
			t.Errorf("VG %q", p.VG)
		}
		cm = clientMount(dws.TypeLustre)
		delete(cm.Labels, label)
		mustPlan(t, cm, profile, Options{})
	}
}

func TestNames(t *testing.T) {
	long := strings.Repeat("v", maxLVMName)
	tests := []struct {
		name     string
		vg, lv   string // overrides, empty = none
		want     string
		severity dws.Severity
	}{
		{"both", "a-b", "c--d", "/dev/mapper/a--b-c----d", ""},
		{"all characters", "A.z_0+", "B.y_9+-", "/dev/mapper/A.z_0+-B.y_9+--", ""},
		{"dot", ".", "", "", dws.Major},
		{"dots", "..", "", "", dws.Major},
		{"dash first", "-a", "", "", dws.Major},
		{"slash", "a/b", "", "", dws.Major},
		{"not expanded", "vg-$JOBID", "", "", dws.Major},
		{"too long", long + "v", "", "", dws.Major},
		{"joined name too long", long, "", "", dws.Fatal},
		{"volume with a slash", "", "../x", "", dws.Major},
		{"volume not expanded", "", "$LV_INDEX", "", dws.Major},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			profile := template()
			profile.Data.XFS.VariableOverride = map[string]string{}
			for key, value := range map[string]string{"$VG_NAME": tt.vg, "$LV_NAME": tt.lv} {
				if value != "" {
					profile.Data.XFS.VariableOverride[key] = value
				}
			}
			p, err := ForMount(clientMount(dws.TypeXFS), 0, profile, Options{})
			if tt.severity != "" {
				wantError(t, err, tt.severity)
				return
			}
			if err != nil || p.Device != tt.want || p.Device != "/dev/mapper/"+p.DMName {
				t.Errorf("%+v, %v, want %s", p, err, tt.want)
			}
		})
	}
}

// The names of the rabbit's volumes have dashes in both parts.
func TestDMName(t *testing.T) {
	if got, want := DMName(ownerUID+"_0", "lv-3"), "2c5d0000--0000--4000--8000--00000000000b_0-lv--3"; got != want {
		t.Errorf("DMName = %q, want %q", got, want)
	}
}
