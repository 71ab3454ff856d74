package systemd

import (
	"os"
	"path/filepath"
	"testing"
)

// The unit starts what the administrator would have started, and never something
// relative to a folder that nobody remembers.
func TestProgram(t *testing.T) {
	s := Service{Name: "thing"}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("thing", []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                   filepath.Join(dir, "thing"),
		"/nonexistent:" + dir: filepath.Join(dir, "thing"),
		"/nonexistent":        self,
		".":                   self,
		"":                    self,
	} {
		t.Setenv("PATH", path)
		if have, err := s.program(); err != nil || have != want {
			t.Errorf("PATH=%s: %s, %v, want %s", path, have, err, want)
		}
	}
}
