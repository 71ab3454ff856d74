package plan

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// render returns a plan as text, one line per step.
func render(p *Plan) string {
	var b strings.Builder
	fmt.Fprintf(&b, "path    %s (%s)\nsource  %s type %s\n", p.Path, p.Target, p.Source(), p.FSType)
	if p.VG != "" {
		fmt.Fprintf(&b, "volume  %s/%s rescan %v %v\n", p.VG, p.LV, p.Rescan, p.NVMe)
	}
	if p.LinkTo != "" {
		fmt.Fprintf(&b, "link to %s\n", p.LinkTo)
	}
	for _, list := range []struct {
		name  string
		steps []Step
	}{{"mount", p.Mount}, {"unmount", p.Unmount}} {
		fmt.Fprintf(&b, "\n%s\n", list.name)
		for _, s := range list.steps {
			line := fmt.Sprintf("  %-17s %-11s", s.Name, s.Kind)
			if s.Hook {
				line += " once"
			}
			if s.Argv != nil {
				line += fmt.Sprintf(" %q", s.Argv)
			}
			if s.Shell != "" {
				line += " bash: " + s.Shell
			}
			if s.Kind == Chown || s.Kind == ServersFile {
				line += fmt.Sprintf(" %d:%d", s.UID, s.GID)
			}
			fmt.Fprintf(&b, "%s\n%20s- %s\n", strings.TrimRight(line, " "), "", s.Fail)
		}
	}
	return b.String()
}

// hooked fills every hook list of the profile with two lines.
func hooked(p *nnf.StorageProfile) {
	two := func(name, vars string) []string {
		return []string{"/usr/sbin/" + name + ".sh " + vars, "logger \"" + name + " $HOSTNAME $(date)\" | cat"}
	}
	const block = "$VG_NAME/$LV_NAME $LV_INDEX $LV_SIZE $PERCENT_VG $DEVICE_NUM $DEVICE_NUM-1 [$DEVICE_LIST]"
	const fs = "$DEVICE $MOUNT_PATH $FSTYPE $MOUNT_TARGET $TEMP_DIR"
	const common = " $JOBID $DIRECTIVE_INDEX $WORKFLOW_UID $USERID:$GROUPID"
	for _, s := range []*nnf.Storage{&p.Data.Raw, &p.Data.XFS, &p.Data.GFS2} {
		u := &s.BlockDevice.Compute.User
		u.PreActivate, u.PostActivate = two("preActivate", block+common), two("postActivate", block)
		u.PreDeactivate, u.PostDeactivate = two("preDeactivate", block), two("postDeactivate", block)
		f := &s.FileSystem.Compute.User
		f.PreMount, f.PostMount = two("preMount", fs+common), two("postMount", fs)
		f.PreUnmount, f.PostUnmount = two("preUnmount", fs), two("postUnmount", fs)
	}
	p.Data.GFS2.FileSystem.Compute.User.PreMount[0] += " $CLUSTER_NAME:$LOCK_SPACE $PROTOCOL"
	const lustre = "$MGS_NID:/$FS_NAME $MOUNT_PATH $INDEX $BACKFS $TARGET_NAME $DEVICE $ZVOL_NAME $NUM_MDTS$NUM_MGTS$NUM_MGTMDTS$NUM_OSTS$NUM_NNFNODES"
	c := &p.Data.Lustre.Client.CommandLines
	c.PreMount, c.PostMount = two("preMount", lustre+common), two("postMount", lustre)
	c.PreUnmount, c.PostUnmount = two("preUnmount", lustre), two("postUnmount", lustre)
}

var goldenCases = []struct {
	name   string
	typ    string
	change func(*dws.ClientMount, *nnf.StorageProfile, *Options)
}{
	{"raw", dws.TypeRaw, nil},
	{"xfs", dws.TypeXFS, nil},
	{"gfs2", dws.TypeGFS2, nil},
	{"lustre", dws.TypeLustre, nil},

	{"raw-hooks", dws.TypeRaw, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { hooked(p) }},
	{"xfs-hooks", dws.TypeXFS, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { hooked(p) }},
	{"gfs2-hooks", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { hooked(p) }},
	{"lustre-hooks", dws.TypeLustre, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { hooked(p) }},

	{"xfs-own-vg", dws.TypeXFS, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		p.Data.XFS.BlockDevice.SharedVG = false
	}},
	{"gfs2-own-vg", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		p.Data.GFS2.BlockDevice.SharedVG = false
	}},
	{"xfs-reference", dws.TypeXFS, func(cm *dws.ClientMount, _ *nnf.StorageProfile, _ *Options) {
		cm.Spec.Mounts[0].Device.Type = dws.DeviceReference
		cm.Spec.Mounts[0].Device.LVM = nil
	}},
	{"xfs-empty-profile", dws.TypeXFS, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { p.Data.XFS = nnf.Storage{} }},
	{"raw-empty-profile", dws.TypeRaw, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { p.Data.Raw = nnf.Storage{} }},
	{"lustre-no-unmount", dws.TypeLustre, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { *p = *withoutUnmount() }},
	{"xfs-no-unmount", dws.TypeXFS, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) { *p = *withoutUnmount() }},
	{"gfs2-other-options", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, o *Options) {
		p.Data.GFS2.FileSystem.Compute.Mount = "-o suid,noatime $DEVICE $MOUNT_PATH"
		o.MountOptions = []string{"nosuid", "noexec", "context=system_u:object_r:tmp_t:s0"}
	}},
	{"lustre-no-options", dws.TypeLustre, func(_ *dws.ClientMount, _ *nnf.StorageProfile, o *Options) { o.MountOptions = nil }},
	{"xfs-quoted", dws.TypeXFS, func(cm *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		p.Data.XFS.FileSystem.Compute.Mount = `  -o 'context="system_u:object_r:tmp_t:s0"',noatime "$DEVICE" $MOUNT_PATH ` + "\n"
		p.Data.XFS.FileSystem.Compute.Unmount = `-l \
 "$MOUNT_PATH"`
		p.Data.XFS.BlockDevice.Compute.LVChange.Activate = `--activate y --config devices\{dir=\"/dev\"\} $VG_NAME/$LV_NAME $DEVICE_LIST "$DEVICE_LIST"`
	}},
	{"xfs-overrides", dws.TypeXFS, func(cm *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		cm.Spec.Mounts[0].MountPath = "/mnt/jobs/$JOBID//$SITE-$DIRECTIVE_INDEX/"
		p.Data.XFS.VariableOverride = map[string]string{
			"$MOUNT_PATH": "/mnt/jobs/$JOBID//$SITE-$DIRECTIVE_INDEX/",
			"$SITE":       "tools-$USERID",
			"$VG_NAME":    "site-vg",
			"$LV_NAME":    "site.lv",
			"$FSTYPE":     "ext4",
			"$TEMP_DIR":   "/scratch",
			"$PERCENT_VG": "50%VG",
			"$OPTIONS":    "-o 'rw,noatime' $VERBOSE",
			"$VERBOSE":    "--verbose",
		}
		p.Data.XFS.FileSystem.Compute.Mount = "$OPTIONS $DEVICE $MOUNT_PATH"
		p.Data.XFS.FileSystem.Compute.User.PreMount = []string{"echo $TEMP_DIR $FSTYPE $OPTIONS $MOUNT_PATH"}
		p.Data.XFS.BlockDevice.Compute.User.PreActivate = []string{"echo $PERCENT_VG $VG_NAME $MOUNT_PATH"}
	}},
	{"raw-target-directory", dws.TypeRaw, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		p.Data.Raw.VariableOverride = map[string]string{"$MOUNT_TARGET": "directory"}
	}},
	{"lustre-overrides", dws.TypeLustre, func(_ *dws.ClientMount, p *nnf.StorageProfile, _ *Options) {
		p.Data.Lustre.OST.VariableOverride = map[string]string{"$FSNAME": "other", "$MGS_NID": "5@kfi", "$BACKFS": "zfs", "$TARGET_TYPE": "mdt"}
		p.Data.Lustre.Client.VariableOverride = map[string]string{"$OPT": "-o flock", "$MGS_NID": "6@kfi"}
		p.Data.Lustre.Client.CommandLines.Mount = "$OPT $MGS_NID:/$FS_NAME $MOUNT_PATH"
		p.Data.Lustre.Client.CommandLines.PreMount = []string{"echo $BACKFS $TARGET_NAME"}
	}},
	{"lustre-servers-file", dws.TypeLustre, func(cm *dws.ClientMount, _ *nnf.StorageProfile, o *Options) {
		cm.Labels[api.LabelOwnerKind], o.ServersFile = "NnfStorage", true
		m := &cm.Spec.Mounts[0]
		m.SetPermissions, m.UserID, m.GroupID = true, 1001, 1002
	}},
	{"kind-xfs", dws.TypeXFS, func(_ *dws.ClientMount, p *nnf.StorageProfile, o *Options) {
		hooked(p)
		o.Mode = ModeKind
	}},
	{"kind-lustre-base", dws.TypeLustre, func(_ *dws.ClientMount, p *nnf.StorageProfile, o *Options) {
		o.Mode, o.MockPath = ModeKind, "/var/tmp/fs/"
	}},
	{"mock-gfs2", dws.TypeGFS2, func(_ *dws.ClientMount, p *nnf.StorageProfile, o *Options) {
		hooked(p)
		o.Mode = ModeMock
	}},
}

func TestGolden(t *testing.T) {
	for _, c := range goldenCases {
		t.Run(c.name, func(t *testing.T) {
			cm, p, o := clientMount(c.typ), template(), defaults()
			if c.change != nil {
				c.change(cm, p, &o)
			}
			plan := mustPlan(t, cm, p, o)
			golden(t, c.name, render(plan))
			for range 20 { // the order of a map must have no effect
				if again := mustPlan(t, cm, p, o); !reflect.DeepEqual(plan, again) {
					t.Fatalf("the same input gave another plan:\n%s", render(again))
				}
			}
			roundTrip(t, plan)
		})
	}
}

// roundTrip checks that a plan does not change by encoding and decoding.
func roundTrip(t *testing.T, plan *Plan) {
	t.Helper()
	text, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	var back Plan
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	again, err := json.Marshal(&back)
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(text) || render(&back) != render(plan) {
		t.Errorf("JSON changes the plan:\n%s\n%s", text, again)
	}
}

// A newer daemon must read the stored plans of an older one, so the keys must not change.
func TestPlanJSONKeys(t *testing.T) {
	cm, p := clientMount(dws.TypeRaw), template()
	text, err := json.MarshalIndent(mustPlan(t, cm, p, Options{}), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "raw.json", string(text)+"\n")
}
