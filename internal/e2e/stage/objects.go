package stage

import (
	"path/filepath"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// patience bounds what should take milliseconds, on a machine that is busy.
const patience = 40 * time.Second

// Apply writes an object.
func (s *Stage) Apply(o lab.Object) {
	s.t.Helper()
	if _, err := s.Cluster.Apply(s.Context(patience), o); err != nil {
		s.t.Fatal(err)
	}
}

// UseProfile makes the scene's storage profile.
func (s *Stage) UseProfile(p lab.ProfileSpec) {
	s.t.Helper()
	s.Apply(lab.Profile(s.Profile, p))
}

// Volume makes the logical volume for allocation index, in a shared group.
func (s *Stage) Volume(index int, o lab.VolumeOptions) *lab.Volume {
	s.t.Helper()
	vg, lv := lab.VolumeNames(s.Owner, "0", index, true)
	v, err := s.AddVolume(vg, lv, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return v
}

// Path is a mount path of the scene.
func (s *Stage) Path(name string) string { return filepath.Join(s.Base, name) }

// Mount asks for mounts on the scene's node.
func (s *Stage) Mount(name string, mounts ...lab.MountSpec) lab.Object {
	s.t.Helper()
	o := lab.ClientMount(name, s.Node, lab.ClientMountSpec{Profile: s.Profile, OwnerUID: s.Owner, Mounts: mounts})
	s.Apply(o)
	return o
}

// Want changes the desired state.
func (s *Stage) Want(name, state string) {
	s.t.Helper()
	change := lab.Object{"spec": map[string]any{"desiredState": state}}
	if _, err := s.Cluster.Patch(s.Context(patience), "ClientMount", s.Node, name, change); err != nil {
		s.t.Fatal(err)
	}
}

// Await waits until the object is ready in the state.
func (s *Stage) Await(name, state string) lab.Object {
	s.t.Helper()
	return s.AwaitStatus(name, func(o lab.Object) bool { return o.Ready(state) })
}

// AwaitError waits until the object has an error in its status.
func (s *Stage) AwaitError(name string) lab.Object {
	s.t.Helper()
	return s.AwaitStatus(name, func(o lab.Object) bool { return o.Severity() != "" })
}

// AwaitStatus waits until the object fits.
func (s *Stage) AwaitStatus(name string, fits func(lab.Object) bool) lab.Object {
	s.t.Helper()
	o, err := s.Cluster.WaitStatus(s.Context(patience), s.Node, name, fits)
	if err != nil {
		now, _ := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
		s.t.Fatalf("%s: %v; the status is %v", name, err, now["status"])
	}
	return o
}

// Delete deletes the object and waits until it is gone.
func (s *Stage) Delete(name string) {
	s.t.Helper()
	if err := s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, name); err != nil && !lab.IsNotFound(err) {
		s.t.Fatal(err)
	}
	if err := s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, name); err != nil {
		now, _ := s.Cluster.Get(s.Context(patience), "ClientMount", s.Node, name)
		s.t.Fatalf("%s is not gone: %v; the status is %v", name, err, now["status"])
	}
}

// NothingLeft fails the test when mounts, active volumes, locks or processes
// of scenes remain. Daemons must have been stopped before.
func (s *Stage) NothingLeft() {
	s.t.Helper()
	left, err := s.Leftovers()
	if err != nil {
		s.t.Fatal(err)
	}
	for _, l := range left {
		s.t.Error("left behind: ", l)
	}
}
