package node

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestMissingTargets(t *testing.T) {
	base := t.TempDir()
	there := filepath.Join(base, "there")
	if err := os.Mkdir(there, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(there, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"there", nil},
		{"there/a", []string{"there/a"}},
		{"there/a/b/c", []string{"there/a", "there/a/b", "there/a/b/c"}},
		{"file", nil},
		{"file/a", nil},
		{"link/a", nil}, // refused later, so nothing will be made
	} {
		var want []string
		for _, w := range tt.want {
			want = append(want, filepath.Join(base, w))
		}
		if got := new(Node).MissingTargets(filepath.Join(base, tt.path)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.path, got, want)
		}
	}
	for _, bad := range []string{"", "/", "relative", base + "//a", base + "/../a"} {
		if got := new(Node).MissingTargets(bad); got != nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// What is announced is what is made then, and what RemoveTarget takes back.
func TestMissingTargetsAreMade(t *testing.T) {
	n := &Node{}
	path := filepath.Join(t.TempDir(), "a/b/fs")
	announced := n.MissingTargets(path)
	made, err := n.MakeFile(path)
	if err != nil || len(made) != 3 || !slices.Equal(announced, made) {
		t.Fatalf("announced %q, made %q, %v", announced, made, err)
	}
	if left, err := n.RemoveTarget(path, announced); err != nil || len(left) > 0 {
		t.Fatalf("%q %v", left, err)
	}
}
