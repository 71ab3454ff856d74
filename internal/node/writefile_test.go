package node

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWriteFileIn(t *testing.T) {
	n := &Node{}
	dir := t.TempDir()
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	// A user has created a link with the name of the file.
	if err := os.Symlink(victim, filepath.Join(dir, "file")); err != nil {
		t.Fatal(err)
	}
	uid, gid := uint32(os.Getuid()), uint32(os.Getgid())
	for _, text := range []string{"one", "two"} {
		if err := n.WriteFileIn(dir, "file", []byte(text), uid, gid); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, "file")); err != nil || string(got) != text {
			t.Fatalf("%q %v", got, err)
		}
	}
	if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
		t.Errorf("the link was followed: %q %v", got, err)
	}
	st, err := os.Lstat(filepath.Join(dir, "file"))
	if err != nil || st.Mode() != 0o644 {
		t.Errorf("mode %v %v", st.Mode(), err)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

func TestWriteFileInRefuses(t *testing.T) {
	n := &Node{}
	dir := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ dir, file, text string }{
		"a path":       {dir, "../x", "not a file name"},
		"no name":      {dir, "", "not a file name"},
		"no directory": {filepath.Join(dir, "no"), "x", "cannot open"},
		"a symlink":    {link, "x", "cannot open"},
	} {
		t.Run(name, func(t *testing.T) {
			err := n.WriteFileIn(c.dir, c.file, []byte("x"), 0, 0)
			if err == nil || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want %q", err, c.text)
			}
		})
	}
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := n.WriteFileIn(dir, "taken", []byte("x"), uint32(os.Getuid()), uint32(os.Getgid())); err == nil {
		t.Error("a directory was replaced by a file")
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}
