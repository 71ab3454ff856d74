package clientmount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// mountTables returns a node with these mount tables of process 1 and of this process; ""
// means no table.
func mountTables(t *testing.T, host, self string) *node.Node {
	t.Helper()
	root := t.TempDir()
	for process, table := range map[string]string{"1": host, "self": self} {
		dir := filepath.Join(root, "proc", process)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if table == "" {
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(table), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return &node.Node{Root: root}
}

// Only real mounts must be visible to the host, unless the setting allows any namespace.
// If the namespace cannot be determined, the daemon does not start.
func TestCheckNamespace(t *testing.T) {
	const host, private = "25 1 254:0 / / rw - ext4 /dev/vda1 rw\n", "94 57 254:0 / / rw - ext4 /dev/vda1 rw\n"
	for _, tt := range []struct {
		name, mode, allowed string
		init, self          string // mount tables
		says                string // error text; "": no error
	}{
		{"the host's", "real", "host", host, host, ""},
		{"its own", "real", "host", host, private, "mounts made here are not visible to the host: the daemon runs in a separate mount namespace"},
		{"its own, allowed", "real", "any", host, private, ""},
		{"its own, links", "kind", "host", host, private, ""},
		{"its own, mock", "mock", "host", host, private, ""},
		{"process 1 is hidden", "real", "host", "", private, "cannot determine whether mounts made here are visible to the host"},
		{"process 1 is hidden, allowed", "real", "any", "", private, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := checkNamespace(tt.mode, tt.allowed, mountTables(t, tt.init, tt.self))
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused, ok := errors.AsType[*daemon.Refusal](err)
			if !ok || refused.Text != tt.says || !strings.Contains(refused.Hint, "look for Protect") || !strings.Contains(refused.Hint, `daemon.mount_namespace = "any"`) {
				t.Errorf("%v", err)
			}
		})
	}
}

// The settings for paths and options take effect in the plan.
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
		{"default, a name with the same prefix", "", "/mnt2/x", "", false},
		{"a root of the site", `mount.roots = ["/mnt", "/opt"]`, "/opt/x", defaults, false},
		{"only a root of the site", `mount.roots = ["/opt"]`, "/mnt/nnf/a", "", false},
		{"no options", "mount.options = []", "/mnt/nnf/a", "mount -t lustre 1@tcp:/fs", false},
		{"other options", `mount.options = ["noexec", "nosuid"]`, "/mnt/nnf/a", "mount -t lustre -o noexec,nosuid 1@tcp:/fs", false},
		{"servers file", "mount.servers_file = true", "/mnt/nnf/a", defaults, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var cfg Configuration
			file := filepath.Join(t.TempDir(), "config.toml")
			if err := os.WriteFile(file, []byte(tt.file), 0o644); err != nil {
				t.Fatal(err)
			}
			if _, _, err := config.Load(cfg.Table(), config.Sources{Args: []string{"--config", file}}); err != nil {
				t.Fatal(err)
			}
			cm := &dws.ClientMount{}
			cm.Labels = map[string]string{api.LabelOwnerKind: "NnfStorage"}
			cm.Spec.Mounts = []dws.Mount{{MountPath: tt.path, Type: dws.TypeLustre, Device: dws.Device{
				Type: dws.DeviceLustre, Lustre: &dws.LustreDevice{FileSystemName: "fs", MGSAddresses: "1@tcp"}, DeviceReference: &dws.ReferenceDevice{},
			}}}
			profile := &nnf.StorageProfile{}
			profile.Data.Lustre.Client.CommandLines.Mount = "$MGS_NID:/$FS_NAME $MOUNT_PATH"
			p, err := plan.ForMount(cm, 0, profile, cfg.Controller.Plan)
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

// The interval is 0 or at least a minute.
func TestNeverOrMinute(t *testing.T) {
	for d, ok := range map[time.Duration]bool{0: true, time.Second: false, time.Minute: true} {
		if err := neverOrMinute(d); (err == nil) != ok {
			t.Errorf("interval %v: %v", d, err)
		}
	}
}
