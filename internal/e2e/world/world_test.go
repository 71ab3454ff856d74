package world

import (
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// A whole life: mount, look, unmount, delete, nothing left.
func TestLife(t *testing.T) {
	s := New(t)
	v := s.Volume(3, lab.VolumeOptions{})
	s.UseProfile(ProfileSpec{})
	d := s.Start()
	s.Mount("one", MountSpec{Path: s.Path("a"), Type: "xfs", Index: 3})
	s.Await("one", "mounted")
	m, ok, err := s.MountAt(s.Path("a"))
	if err != nil || !ok || m.Source != v.Node || m.Type != "xfs" {
		t.Fatalf("%+v %v %v", m, ok, err)
	}
	s.Want("one", "unmounted")
	s.Await("one", "unmounted")
	s.Delete("one")
	s.Stop(d)
	s.NothingLeft()
}

// The API server takes what the builders make, and keeps it.
func TestObjects(t *testing.T) {
	w := New(t)
	w.UseProfile(ProfileSpec{Hooks: map[string]Hooks{
		"xfs": {"preActivate": {"true"}, "postMount": {"true"}}, "lustre": {"preMount": {"true"}},
	}, Overrides: map[string]string{"$MOUNT_PATH": "/mnt/nnf/x"}})
	w.Mount("cm", MountSpec{Path: "/mnt/nnf/a", Type: "xfs", Index: 3, NQN: "nqn.x", NSID: "12"},
		MountSpec{Path: "/mnt/nnf/b", Type: "none", Own: true, UID: 1000, GID: 1000},
		MountSpec{Path: "/mnt/nnf/c", Type: "lustre", FSName: "fs", MGS: "1@tcp"},
		MountSpec{Path: "/mnt/nnf/d", Type: "gfs2", Device: "reference"})
	got, err := w.Cluster.Get(t.Context(), "ClientMount", w.Node, "cm")
	if err != nil || got.At("spec", "mounts", 0, "device", "lvm", "nvmeInfo", 0, "deviceSerial") != "nqn.x" || got.Ready("mounted") {
		t.Errorf("%v %v", got, err)
	}
	w.Report(got, "mounted", true)
	w.Await("cm", "mounted")
}
