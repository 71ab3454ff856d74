package lab

import (
	"os"
	"path/filepath"
	"testing"
)

// A device that another test detaches while /dev is copied does not stop the copy.
func TestCopyEntriesRemoved(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	for _, name := range []string{"a", "removed", "z"} {
		if err := os.Symlink("/target", filepath.Join(from, name)); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(from, "removed")); err != nil {
		t.Fatal(err)
	}
	if err := copyEntries(from, to, entries); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(to)
	if err != nil || len(list) != 2 || list[0].Name() != "a" || list[1].Name() != "z" {
		t.Errorf("copied %v, error %v; want a and z", list, err)
	}
}
