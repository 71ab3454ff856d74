package clientmount

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Whoever can put a file into the folder of records, or swap the folder, has
// commands run as root.
func TestOpenRecords(t *testing.T) {
	mkdir := func(t *testing.T, path string, mode os.FileMode) string {
		t.Helper()
		if err := os.MkdirAll(path, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil { // the umask does not count
			t.Fatal(err)
		}
		return path
	}
	for name, test := range map[string]struct {
		make func(t *testing.T, base string) string // returns the runtime directory
		want string                                 // "" is accepted
	}{
		"new":         {func(_ *testing.T, base string) string { return base + "/run" }, ""},
		"new, deep":   {func(_ *testing.T, base string) string { return base + "/a/b/run" }, ""},
		"systemd's":   {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o755) }, ""},
		"used before": {func(t *testing.T, base string) string { mkdir(t, base+"/run/mounts", 0o700); return base + "/run" }, ""},
		"in a sticky folder": {func(t *testing.T, base string) string {
			return mkdir(t, base+"/tmp", 0o777|os.ModeSticky) + "/run"
		}, ""},
		"in a folder open to all": {func(t *testing.T, base string) string { return mkdir(t, base+"/tmp", 0o777) + "/run" }, "others can write to "},
		"open to all":             {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o777) }, "can be written by others (mode 0777)"},
		"open to a group":         {func(t *testing.T, base string) string { return mkdir(t, base+"/run", 0o770) }, "can be written by others (mode 0770)"},
		"records open to all": {func(t *testing.T, base string) string {
			mkdir(t, base+"/run/mounts", 0o707)
			return base + "/run"
		}, "mounts can be written by others (mode 0707)"},
		"a file": {func(t *testing.T, base string) string {
			if err := os.WriteFile(base+"/run", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "not a directory"},
		"a link": {func(t *testing.T, base string) string {
			if err := os.Symlink(mkdir(t, base+"/real", 0o700), base+"/run"); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "run is a symbolic link"},
		"records are a link": {func(t *testing.T, base string) string {
			if err := os.Symlink(mkdir(t, base+"/real", 0o700), mkdir(t, base+"/run", 0o755)+"/mounts"); err != nil {
				t.Fatal(err)
			}
			return base + "/run"
		}, "mounts is a symbolic link"},
		"another user's": {func(t *testing.T, base string) string {
			dir := mkdir(t, base+"/run", 0o755)
			if err := os.Chown(dir, 12345, 0); err != nil {
				t.Skip("only root can give a folder away: ", err)
			}
			return dir
		}, "belongs to uid 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := test.make(t, mkdir(t, t.TempDir(), 0o755))
			_, err := OpenRecords(dir)
			switch {
			case test.want == "" && err != nil:
				t.Fatal(err)
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "daemon.runtime_directory")):
				t.Fatalf("got %v, want %q and what to do", err, test.want)
			case test.want != "":
				return
			}
			st, err := os.Stat(filepath.Join(dir, "mounts"))
			if err != nil || st.Mode().Perm() != 0o700 {
				t.Errorf("the folder of records: %v %v", st, err)
			}
		})
	}
}
