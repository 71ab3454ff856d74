package credentials

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
)

var some = &Credentials{Token: "token", CA: []byte("ca\n")}

func changes(list []Written) (s string) {
	for _, w := range list {
		s += filepath.Base(w.Path) + " " + w.Change + "; "
	}
	return s
}

// names returns the names of all files in a directory, including temporary ones.
func names(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWrite(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "outside")
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    string // changes
		err     string
	}{
		{"no files", func(*testing.T, string) {}, "service.token new; service.cert new; ", ""},
		{"same contents", func(t *testing.T, dir string) {
			put(t, dir, "service.token", "token", 0o600)
			put(t, dir, "service.cert", "ca\n", 0o600)
		},
			"service.token unchanged; service.cert unchanged; ", ""},
		{"different token", func(t *testing.T, dir string) {
			put(t, dir, "service.token", "nekot", 0o600)
			put(t, dir, "service.cert", "ca\n", 0o600)
		},
			"service.token changed; service.cert unchanged; ", ""},
		{"readable by other users", func(t *testing.T, dir string) { put(t, dir, "service.token", "token", 0o644) },
			"service.token changed; service.cert new; ", ""},
		{"symbolic link to a file", func(t *testing.T, dir string) {
			put(t, dir, "real", "token", 0o600)
			link(t, "real", filepath.Join(dir, "service.token"))
		}, "service.token changed; service.cert new; ", ""},
		{"symbolic link out of the directory", func(t *testing.T, dir string) { link(t, outside, filepath.Join(dir, "service.token")) },
			"service.token changed; service.cert new; ", ""},
		{"directory with this name", func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, "service.cert"), 0o755) },
			"", "service.cert: a directory has this name"},
		{"directory that all users can write to", func(t *testing.T, dir string) { chmod(t, dir, 0o777) }, "", "chmod o-w"},
		{"directory with sticky bit, like /tmp", func(t *testing.T, dir string) { chmod(t, dir, 0o777|fs.ModeSticky) },
			"service.token new; service.cert new; ", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			mkdir(t, dir, 0o755)
			tt.prepare(t, dir)
			before := names(t, dir)
			got, err := some.Write(dir)
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) || names(t, dir) != before {
					t.Errorf("error %v, files %s", err, names(t, dir))
				}
				return
			}
			if err != nil || changes(got) != tt.want {
				t.Fatalf("%q %v", changes(got), err)
			}
			for name, content := range map[string]string{product.TokenFile: "token", product.CertFile: "ca\n"} {
				path := filepath.Join(dir, name)
				info, err := os.Lstat(path)
				data, rerr := os.ReadFile(path)
				if err != nil || rerr != nil || info.Mode() != 0o600 || string(data) != content {
					t.Errorf("%s: %v %q %v %v", name, info.Mode(), data, err, rerr)
				}
			}
			if strings.Contains(names(t, dir), ".service") {
				t.Errorf("left behind: %s", names(t, dir))
			}
		})
	}
	if _, err := os.Lstat(outside); !os.IsNotExist(err) {
		t.Errorf("Write has followed the link: %v", err)
	}
}

// A directory that Write creates has mode 0700, whatever the umask. An existing one keeps
// its mode.
func TestWriteDirectory(t *testing.T) {
	base := t.TempDir()
	if _, err := some.Write(filepath.Join(base, "a", "b")); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"a", "a/b"} {
		if info, err := os.Stat(filepath.Join(base, dir)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v %v", dir, info.Mode(), err)
		}
	}
	put(t, base, "file", "", 0o600)
	if _, err := some.Write(filepath.Join(base, "file")); err == nil {
		t.Error("a file was accepted as a directory")
	}
}

func put(t *testing.T, dir, name, content string, mode fs.FileMode) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, to, at string) {
	t.Helper()
	if err := os.Symlink(to, at); err != nil {
		t.Fatal(err)
	}
}

func mkdir(t *testing.T, dir string, mode fs.FileMode) {
	t.Helper()
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
}

func chmod(t *testing.T, dir string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
}
