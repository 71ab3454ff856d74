package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	hostTable = `25 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
26 25 0:24 / /proc rw,nosuid,nodev,noexec,relatime shared:13 - proc proc rw
40 25 0:33 / /mnt/a\040b rw,relatime shared:20 - tmpfs / rw
`
	privateTable = `94 57 254:0 / / rw,relatime shared:36 master:1 - ext4 /dev/vda1 rw
95 94 0:24 / /proc rw,nosuid,nodev,noexec,relatime shared:37 master:13 - proc proc rw
`
)

func TestInHostMountNamespace(t *testing.T) {
	for name, c := range map[string]struct {
		host, self string // "" leaves the file out
		same       bool
		detail     string
		err        string
	}{
		"host":               {hostTable, hostTable, true, "mount id of / is 25 here and 25 in process 1", ""},
		"private":            {hostTable, privateTable, false, "94 here and 25 in process 1; look for Protect", ""},
		"more mounts here":   {hostTable, hostTable + "99 25 0:50 / /run/x rw - tmpfs tmpfs rw\n", true, "25", ""},
		"/ mounted over":     {hostTable + "99 25 0:50 / / rw - tmpfs tmpfs rw\n", hostTable, false, "25 here and 99", ""},
		"no mount at /":      {hostTable, "26 25 0:24 / /proc rw - proc proc rw\n", false, "", "no mount at /"},
		"empty table":        {"\n", hostTable, false, "", "/proc/1/mountinfo"},
		"not a mount table":  {"what is this\n", hostTable, false, "", "/proc/1/mountinfo"},
		"process 1 hidden":   {"", hostTable, false, "", "no such file"},
		"no process at all":  {"", "", false, "", "no such file"},
		"own table is gone":  {hostTable, "", false, "", "/proc/self/mountinfo"},
		"device is named /":  {hostTable, "40 25 0:33 / /mnt rw - tmpfs / rw\n" + hostTable, true, "25", ""},
		"root of a bind dir": {hostTable, "41 25 254:0 /srv / rw - ext4 /dev/vda1 rw\n", false, "41 here", ""},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			for process, table := range map[string]string{"1": c.host, "self": c.self} {
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
			same, detail, err := InHostMountNamespace(root)
			if same != c.same || !strings.Contains(detail, c.detail) {
				t.Errorf("got %v, %q", same, detail)
			}
			if c.err == "" && err != nil || c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
		})
	}
}
