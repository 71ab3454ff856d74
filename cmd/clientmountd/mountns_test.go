package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Only real mounts need the host to see them, and only where nobody says that it
// does not matter; what cannot be told is no permission.
func TestCheckNamespace(t *testing.T) {
	const host, private = "25 1 254:0 / / rw - ext4 /dev/vda1 rw\n", "94 57 254:0 / / rw - ext4 /dev/vda1 rw\n"
	for _, tt := range []struct {
		name, mode, allowed string
		init, self          string // mount tables
		says                string // "": it starts
	}{
		{"the host's", "real", "host", host, host, ""},
		{"its own", "real", "host", host, private, "the host would not see the mounts made here: this is a mount namespace of its own"},
		{"its own, allowed", "real", "any", host, private, ""},
		{"its own, links", "kind", "host", host, private, ""},
		{"its own, nothing is done", "mock", "host", host, private, ""},
		{"process 1 is hidden", "real", "host", "", private, "it is not known whether the host would see the mounts made here"},
		{"process 1 is hidden, allowed", "real", "any", "", private, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for process, table := range map[string]string{"1": tt.init, "self": tt.self} {
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
			err := checkNamespace(tt.mode, tt.allowed, root)
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			refused, ok := errors.AsType[*unseen](err)
			if !ok || refused.text != tt.says || !strings.Contains(refused.hint, `daemon.mount_namespace = "any"`) {
				t.Errorf("%v", err)
			}
		})
	}
}
