package lab

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Each kind of mount of the daemons is in the mount table and in Leftovers until it is
// unmounted.
func TestMounts(t *testing.T) {
	l := newLab(t)
	v := l.mustVolume(t, "a-b_0", "lv-0", VolumeOptions{})
	raw := l.mustVolume(t, "raw", "lv", VolumeOptions{Raw: true})
	noLeftovers(t, l)
	for _, vol := range []*Volume{v, raw} {
		if err := l.Tool("lvchange", "--activate", "y", vol.VG+"/"+vol.LV); err != nil {
			t.Fatal(err)
		}
	}
	if v.Node != "/dev/mapper/a--b_0-lv--0" {
		t.Fatalf("node %s", v.Node)
	}
	target := filepath.Join(l.MountBase, "x y")
	file := filepath.Join(l.MountBase, "raw")
	if err := os.MkdirAll(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gfs2 := "xfs"
	xfs := "xfs"
	if !l.Features.Full() {
		xfs, gfs2 = "tmpfs", "tmpfs"
	}
	tests := []struct{ name, fstype, source, target, table string }{
		{"xfs", "xfs", v.Node, target, xfs},
		{"gfs2", "gfs2", v.Node, target, gfs2},
		{"lustre", "lustre", "10.0.0.1@tcp:10.0.0.2@tcp:/fsname", target, "tmpfs"},
		{"raw", "none", raw.Node, file, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"-t", tt.fstype, tt.source, tt.target}
			if tt.fstype == "none" {
				args = append([]string{"-o", "bind"}, args...)
			}
			run(t, filepath.Join(l.Bin, "mount"), args...)
			m, ok, err := l.MountAt(tt.target)
			if err != nil || !ok || (tt.table != "" && (m.Type != tt.table || m.Source != tt.source)) {
				t.Errorf("mount table: %+v %v %v", m, ok, err)
			}
			left, _ := l.Leftovers()
			if !strings.Contains(strings.Join(left, "\n"), "mount "+m.Source+" at "+tt.target) {
				t.Errorf("not in Leftovers: %q", left)
			}
			if tt.fstype == "xfs" || tt.fstype == "gfs2" {
				if err := l.Tool("lvchange", "--activate", "n", "a-b_0/lv-0"); err == nil || !strings.Contains(err.Error(), "in use") {
					t.Errorf("deactivation of a mounted volume: %v", err)
				}
			}
			run(t, filepath.Join(l.Bin, "umount"), tt.target)
			if _, ok, _ := l.MountAt(tt.target); ok {
				t.Error("still mounted")
			}
		})
	}
	for _, vol := range []*Volume{v, raw} {
		if err := l.Tool("lvchange", "--activate", "n", vol.VG+"/"+vol.LV); err != nil {
			t.Fatal(err)
		}
	}
	noLeftovers(t, l)
}

var features Features

func TestMain(m *testing.M) {
	if role := os.Getenv("LAB_TEST_ROLE"); role != "" {
		Enter()
		os.Exit(runRole(role))
	}
	features = Enter()
	os.Exit(m.Run())
}

// runRole runs this program as a child process of a test.
func runRole(role string) int {
	l, err := New("")
	if err != nil {
		fmt.Println("new:", err)
		return 1
	}
	v, err := l.AddVolume("vg", "lv", VolumeOptions{Active: true})
	if err != nil {
		fmt.Println("volume:", err)
		return 1
	}
	fmt.Printf("volume %d dir %s image %q\n", v.Loop, l.Dir, v.Image)
	switch role {
	case "panic":
		defer l.Close()
		panic("test")
	case "wait":
		select {}
	}
	return 0
}

func newLab(t *testing.T) *Lab {
	t.Helper()
	if !features.Private {
		t.Skip("no lab on this machine: " + features.Why)
	}
	l, err := New("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error("close:", err)
		}
	})
	return l
}

func (l *Lab) mustVolume(t *testing.T, vg, lv string, o VolumeOptions) *Volume {
	t.Helper()
	v, err := l.AddVolume(vg, lv, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func noLeftovers(t *testing.T, l *Lab) {
	t.Helper()
	left, err := l.Leftovers()
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// soon returns a context with a timeout that is long enough for a slow machine.
func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}
