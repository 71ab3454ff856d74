package machine

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestSystemdCgroups(t *testing.T) {
	const hybrid = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:3 - cgroup2 cgroup2 rw
`
	for name, test := range map[string]struct {
		own, mounts string
		want        []string
	}{
		"hybrid":       {"9:name=systemd:/\n1:cpu:/x\n0::/\n", hybrid, []string{"/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"}},
		"below":        {"9:name=systemd:/user/a\n0::/b:c\n", hybrid, []string{"/sys/fs/cgroup/systemd/user/a", "/sys/fs/cgroup/unified/b:c"}},
		"version 2":    {"0::/ci\n", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", []string{"/sys/fs/cgroup/ci"}},
		"part mounted": {"0::/ci/job\n", "30 23 0:26 /ci /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", []string{"/sys/fs/cgroup/job"}},
		"none":         {"1:cpu:/\n", hybrid, nil},
		"not mounted":  {"0::/\n", "1 2 0:1 / / rw - ext4 /dev/vda rw\ngarbage\n", nil},
	} {
		t.Run(name, func(t *testing.T) {
			if got := systemdCgroups(test.own, test.mounts); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRemoveTree(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "group")
	if err := os.MkdirAll(filepath.Join(dir, "payload", "system.slice", "a.service"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := removeTree(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Error("still there:", err)
	}
	if err := removeTree(dir); err != nil {
		t.Error("removing what is gone:", err)
	}
}
