package units

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// run runs a tool of systemd that does not need a running systemd.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		require.Missing(t, err.Error()+"; it is in the package systemd")
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// The presets enable exactly the right units if all others are disabled, as on
// Enterprise Linux.
func TestPresets(t *testing.T) {
	in := install(t)
	in.write(t, "usr/lib/systemd/system-preset/99-default-disable.preset", "disable *\n", 0o644)
	// A unit without a preset stays disabled.
	in.write(t, "usr/lib/systemd/system/other.service", "[Service]\nExecStart=/bin/kill\n[Install]\nWantedBy=multi-user.target\n", 0o644)
	run(t, "systemctl", append([]string{"--root=" + string(in), "preset", "other.service"}, all...)...)
	var links []string
	for _, pattern := range []string{"*.service", "*/*"} {
		found, err := filepath.Glob(filepath.Join(string(in), "etc/systemd/system", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			f, _ = filepath.Rel(filepath.Join(string(in), "etc/systemd/system"), f)
			links = append(links, f)
		}
	}
	slices.Sort(links)
	want := []string{"multi-user.target.wants/clientmountd.service", "nnf-clientmount.service", "sockets.target.wants/nnf-dm.socket"}
	if !slices.Equal(links, want) {
		t.Errorf("enabled: %q, want %q", links, want)
	}
}

// Existing installers enable the service, which must enable the socket.
func TestEnableServiceEnablesSocket(t *testing.T) {
	in := install(t)
	run(t, "systemctl", "--root="+string(in), "enable", "nnf-dm.service")
	if _, err := os.Lstat(filepath.Join(string(in), "etc/systemd/system/sockets.target.wants/nnf-dm.socket")); err != nil {
		t.Error(err)
	}
}

// The user is created, and other users have no access to the credentials, even if an
// installer has created a readable token.
func TestUserAndDirectories(t *testing.T) {
	if os.Geteuid() != 0 {
		require.Missing(t, "only root can change the owner of files")
	}
	in := install(t)
	for _, daemon := range []string{"clientmountd", "nnf-dm"} {
		in.write(t, "etc/"+daemon+"/service.token", "secret\n", 0o644)
	}
	in.write(t, "etc/passwd", "root:x:0:0:root:/root:/bin/bash\n", 0o644)
	in.write(t, "etc/group", "root:x:0:\n", 0o644)
	run(t, "systemd-sysusers", "--root="+string(in), "nnf-dm.conf")
	run(t, "systemd-tmpfiles", "--root="+string(in), "--create", "clientmountd.conf", "nnf-dm.conf")

	users, err := os.ReadFile(filepath.Join(string(in), "etc/passwd"))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^nnf-dm:x:(\d+):(\d+):[^:]*:/:.*/nologin$`).FindStringSubmatch(string(users))
	if m == nil {
		t.Fatalf("nnf-dm is not a user without a login: %s", users)
	}
	for path, want := range map[string]string{
		"etc/clientmountd": "0700 0:0", "etc/clientmountd/config.d": "0700 0:0", "etc/clientmountd/service.token": "0600 0:0",
		"etc/nnf-dm": "0750 0:" + m[2], "etc/nnf-dm/config.d": "0750 0:" + m[2], "etc/nnf-dm/service.token": "0640 0:" + m[2],
	} {
		info, err := os.Stat(filepath.Join(string(in), path))
		if err != nil {
			t.Error(err)
			continue
		}
		st := info.Sys().(*syscall.Stat_t)
		if got := fmt.Sprintf("%04o %d:%d", info.Mode().Perm(), st.Uid, st.Gid); got != want {
			t.Errorf("%s is %s, want %s", path, got, want)
		}
	}
	if user := value(t, readUnit(t, copier), "Service", "User"); user != "nnf-dm" {
		t.Errorf("the unit runs as %s", user)
	}
}

// The modules that LVM needs are loaded at boot, and by the unit before the next boot.
func TestModules(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "systemd/modules-load.d/clientmountd.conf"))
	if err != nil {
		t.Fatal(err)
	}
	var modules []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			modules = append(modules, line)
		}
	}
	if !slices.Contains(modules, "dm_mod") || !slices.Contains(modules, "dm_raid") {
		t.Errorf("modules of LVM are missing: %q", modules)
	}
	unit := readUnit(t, mounter)
	for _, key := range []string{"Wants", "After"} {
		in := strings.Fields(strings.Join(values(unit, "Unit", key), " "))
		for _, m := range modules {
			if !slices.Contains(in, "modprobe@"+m+".service") {
				t.Errorf("%s= lacks modprobe@%s.service", key, m)
			}
		}
	}
}
