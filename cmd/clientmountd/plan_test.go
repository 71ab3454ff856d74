package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/config"
)

// What the configuration says of paths and options arrives in the plan.
func TestPlanFollowsTheConfiguration(t *testing.T) {
	const defaults = "mount -t lustre -o nosuid,nodev"
	tests := []struct {
		name, file string
		path       string
		want       string // start of the mount command; empty = the path is refused
		servers    bool
	}{
		{"default", "", "/mnt/nnf/a", defaults, false},
		{"default, cron", "", "/var/spool/cron", "", false},
		{"default, RPM database", "", "/var/lib/rpm", "", false},
		{"default, elsewhere", "", "/opt/x", "", false},
		{"default, neighbour", "", "/mnt2/x", "", false},
		{"a root of the site", `mount.roots = ["/mnt", "/opt"]`, "/opt/x", defaults, false},
		{"only a root of the site", `mount.roots = ["/opt"]`, "/mnt/nnf/a", "", false},
		{"no options", "mount.options = []", "/mnt/nnf/a", "mount -t lustre 1@tcp:/fs", false},
		{"other options", `mount.options = ["noexec", "nosuid"]`, "/mnt/nnf/a", "mount -t lustre -o noexec,nosuid 1@tcp:/fs", false},
		{"servers file", "mount.servers_file = true", "/mnt/nnf/a", defaults, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var cfg config.Clientmountd
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, _, err := config.Load(config.ClientmountdTable(&cfg), config.Sources{File: file}); err != nil {
				t.Fatal(err)
			}
			cm := &dws.ClientMount{}
			cm.Labels = map[string]string{api.LabelOwnerKind: "NnfStorage"}
			cm.Spec.Mounts = []dws.Mount{{MountPath: tt.path, Type: dws.TypeLustre, Device: dws.Device{
				Type: dws.DeviceLustre, Lustre: &dws.LustreDevice{FileSystemName: "fs", MGSAddresses: "1@tcp"}, DeviceReference: &dws.ReferenceDevice{},
			}}}
			profile := &nnf.StorageProfile{}
			profile.Data.Lustre.Client.CommandLines.Mount = "$MGS_NID:/$FS_NAME $MOUNT_PATH"
			p, err := plan.ForMount(cm, 0, profile, planOf(&cfg))
			if tt.want == "" {
				if !errors.Is(err, plan.ErrOutsideRoots) {
					t.Errorf("error %v, want ErrOutsideRoots", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(p.MountStep(plan.Mount).Argv, " "); !strings.HasPrefix(got, tt.want+" ") {
				t.Errorf("command %q, want %q", got, tt.want)
			}
			if got := p.MountStep(plan.ServersFile) != nil; got != tt.servers {
				t.Errorf("servers file: %v", got)
			}
		})
	}
}
