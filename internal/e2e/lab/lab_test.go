package lab

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Each way of mounting that the daemons use, with the real mount(8), must show
// up in the table and be noticed by Leftovers until it is undone.
func TestMountsAreRealAndNoticed(t *testing.T) {
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
				t.Errorf("not noticed: %q", left)
			}
			if tt.fstype == "xfs" || tt.fstype == "gfs2" {
				if err := l.Tool("lvchange", "--activate", "n", "a-b_0/lv-0"); err == nil || !strings.Contains(err.Error(), "in use") {
					t.Errorf("deactivation below a mount: %v", err)
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
