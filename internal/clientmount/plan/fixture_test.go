package plan

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

var update = flag.Bool("update", false, "rewrite testdata/*.golden")

const (
	ownerUID = "2c5d0000-0000-4000-8000-00000000000b"
	jobPath  = "/mnt/nnf/11110000-0000-4000-8000-00000000000a-0"
)

// clientMount returns a ClientMount as the rabbit creates it for one volume of the type.
func clientMount(typ string) *dws.ClientMount {
	cm := &dws.ClientMount{}
	cm.Name, cm.Namespace = "default-job7-0-computes", "compute-01"
	cm.Labels = map[string]string{
		api.LabelOwnerKind:              "NnfAccess",
		api.LabelOwnerName:              "job7-0-computes",
		api.LabelOwnerNamespace:         "default",
		api.LabelWorkflowUID:            "11110000-0000-4000-8000-00000000000a",
		api.LabelDirectiveIndex:         "0",
		api.LabelTargetDirectiveIndex:   "0",
		api.LabelTargetOwnerUID:         ownerUID,
		api.LabelJobID:                  "f9Tk",
		api.LabelPinnedProfileName:      "job7-0",
		api.LabelPinnedProfileNamespace: "default",
	}
	cm.Spec.Node = "compute-01"
	cm.Spec.DesiredState = dws.Mounted
	m := dws.Mount{MountPath: jobPath, Type: typ, TargetType: "directory"}
	if typ == dws.TypeLustre {
		m.Device = dws.Device{
			Type:   dws.DeviceLustre,
			Lustre: &dws.LustreDevice{FileSystemName: "job7fs", MGSAddresses: "10.1.1.2@tcp:10.1.1.3@tcp"},
			DeviceReference: &dws.ReferenceDevice{
				ObjectReference: dws.ObjectReference{Kind: "NnfStorage", Name: "job7-0", Namespace: "default"},
			},
		}
	} else {
		m.Device = dws.Device{
			Type: dws.DeviceLVM,
			LVM: &dws.LVMDevice{DeviceType: "nvme", NVMeInfo: []dws.NVMeNamespace{
				{DeviceSerial: "nqn.2014-08.org.example:disk0", NamespaceID: "12"},
			}},
			DeviceReference: &dws.ReferenceDevice{
				ObjectReference: dws.ObjectReference{Kind: "NnfNodeStorage", Name: "default-job7-0-" + typ + "-0", Namespace: "rabbit-01"},
				Data:            3,
			},
		}
	}
	if typ == dws.TypeRaw {
		m.TargetType, m.SetPermissions, m.UserID, m.GroupID = "file", true, 1001, 1002
	}
	cm.Spec.Mounts = []dws.Mount{m}
	return cm
}

// template returns the shipped profile.
func template() *nnf.StorageProfile {
	p := &nnf.StorageProfile{}
	p.Name, p.Namespace = "job7-0", "default"
	p.Data.Pinned = true
	for _, s := range []*nnf.Storage{&p.Data.Raw, &p.Data.XFS, &p.Data.GFS2} {
		s.BlockDevice.SharedVG = true
		s.BlockDevice.Compute.LVChange.Activate = "--activate y $VG_NAME/$LV_NAME"
		s.BlockDevice.Compute.LVChange.Deactivate = "--activate n $VG_NAME/$LV_NAME"
		s.FileSystem.Compute.Mount = "$DEVICE $MOUNT_PATH"
		s.FileSystem.Compute.Unmount = "$MOUNT_PATH"
	}
	g := &p.Data.GFS2.BlockDevice.Compute
	g.LVChange.Activate = "--activate ys $VG_NAME/$LV_NAME"
	g.VGChange.LockStart, g.VGChange.LockStop = "--lock-start $VG_NAME", "--lock-stop $VG_NAME"
	p.Data.Raw.FileSystem.Compute.Mount = "-o bind $DEVICE $MOUNT_PATH"
	p.Data.Lustre.Client.CommandLines.Mount = "$MGS_NID:/$FS_NAME $MOUNT_PATH"
	p.Data.Lustre.Client.CommandLines.Unmount = "$MOUNT_PATH"
	return p
}

// withoutUnmount returns a profile with mount commands and without unmount commands.
func withoutUnmount() *nnf.StorageProfile {
	text, err := os.ReadFile("testdata/profile-without-unmount.yaml")
	if err != nil {
		panic(err)
	}
	p := &nnf.StorageProfile{}
	if err := yaml.Unmarshal(text, p); err != nil {
		panic(err)
	}
	return p
}

// defaults returns the options of a daemon with the default configuration.
func defaults() Options {
	return Options{Roots: strings.Split(safepath.DefaultMountRoots, ","), MountOptions: strings.Split(safepath.DefaultMountOptions, ",")}
}

func mustPlan(t testing.TB, cm *dws.ClientMount, p *nnf.StorageProfile, o Options) *Plan {
	t.Helper()
	plan, err := ForMount(cm, 0, p, o)
	if err != nil {
		t.Fatalf("ForMount: %v", err)
	}
	return plan
}

// wantError checks the severity of err and that its text contains every piece.
func wantError(t *testing.T, err error, severity dws.Severity, pieces ...string) {
	t.Helper()
	re := (*dws.ResourceError)(nil)
	if !errors.As(err, &re) {
		t.Fatalf("error is %v (%T), want a *dws.ResourceError", err, err)
	}
	if re.Severity != severity {
		t.Errorf("severity %s, want %s: %v", re.Severity, severity, err)
	}
	for _, piece := range pieces {
		if !strings.Contains(err.Error(), piece) {
			t.Errorf("error lacks %q: %v", piece, err)
		}
	}
}

// golden compares got with a file below testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update)", err)
	}
	if got != string(want) {
		t.Errorf("%s differs, run with -update and check the diff\n--- got\n%s--- want\n%s", file, got, want)
	}
}

// names returns the names of the steps.
func names(steps []Step) string {
	var out []string
	for _, s := range steps {
		out = append(out, s.Name)
	}
	return strings.Join(out, " ")
}

// stored returns the plan after a round trip through JSON.
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
