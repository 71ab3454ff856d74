package stage

import (
	"os"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

// A whole scene: mount, look, unmount, delete, nothing left.
func TestScene(t *testing.T) {
	s := New(t)
	v := s.Volume(3, lab.VolumeOptions{})
	s.UseProfile(lab.ProfileSpec{})
	d := s.Start()
	s.Mount("one", lab.MountSpec{Path: s.Path("a"), Type: "xfs", Index: 3})
	s.Await("one", "mounted")
	m, ok, err := s.MountAt(s.Path("a"))
	if err != nil || !ok || m.Source != v.Node || m.Type != "xfs" {
		t.Fatalf("%+v %v %v", m, ok, err)
	}
	s.Want("one", "unmounted")
	s.Await("one", "unmounted")
	s.Delete("one")
	if err := d.Term(); err != nil {
		t.Fatal(err)
	}
	if code, err := d.Wait(s.Context(patience)); code != 0 || err != nil {
		t.Fatalf("exit code %d, %v", code, err)
	}
	s.NothingLeft()
}
