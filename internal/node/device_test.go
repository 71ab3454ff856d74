package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mknod makes a block device node, which only root can; the test ends otherwise.
func mknod(t testing.TB, path string, major, minor uint32) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make device nodes")
	}
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, unix.Mknod(path, unix.S_IFBLK|0o600, int(unix.Mkdev(major, minor))))
}

func TestBlockDevice(t *testing.T) {
	n := plant(t, "machine")
	mknod(t, n.Root+"/dev/dm-0", 253, 1)
	for path, why := range map[string]string{
		"/dev/mapper/vg-lv":       "",
		"/dev/dm-0":               "",
		"/dev/mapper/none":        "no block device",
		"/dev/null/below":         "no block device",
		"/dev/mapper/dangling":    "/dev/dm-9: no block device",
		"/dev/mapper/away":        "/etc/passwd is not inside /dev",
		"/dev/mapper/loop1":       "too many symlinks",
		"/dev/null":               "it is a regular file",
		"/dev/mapper":             "it is a directory",
		"/etc/passwd":             "not inside /dev",
		"/dev/mapper/../mapper/x": "not inside /dev",
		"dev/dm-0":                "not inside /dev",
		"/devices/x":              "not inside /dev",
	} {
		d, err := n.BlockDevice(path)
		if why == "" {
			if err != nil || d.String() != "253:1" {
				t.Errorf("%s: %v, %v", path, d, err)
			}
		} else if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
}

func TestBoundDevice(t *testing.T) {
	n := plant(t, "machine")
	mknod(t, n.Root+"/dev/dm-1", 253, 7)
	for path, why := range map[string]string{
		"/mnt/nnf/raw":  "",
		"/mnt/nnf/gone": "the device node /dm-2 was removed",
		"/mnt/nnf/xfs":  "it is a mount of type xfs",
		"/mnt/lost":     "no other mount shows /x of the tmpfs",
	} {
		m, err := n.MountAt(path)
		must(t, err)
		d, err := n.BoundDevice(*m)
		if why == "" {
			if err != nil || d != (Device{253, 7}) {
				t.Errorf("%s: %v, %v", path, d, err)
			}
		} else if !errors.Is(err, ErrNoDevice) || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, %v", path, d, err)
		}
	}
}

func TestDMName(t *testing.T) {
	n := plant(t, "machine")
	for d, want := range map[Device]string{{253, 1}: "vg-lv", {7, 0}: "", {9, 9}: ""} {
		if got, err := n.DMName(d); err != nil || got != want {
			t.Errorf("%v: %q, %v", d, got, err)
		}
	}
}
