package conformance

import (
	"os"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var goneBehaviours = []behaviour{
	{"profile gone before the unmount", nil, profileGone},
	{"profile gone over a restart", nil, profileGoneRestart},
	{"profile and record gone", nil, recordGone},
	{"profile and record gone, group not shared", lvmOnly, recordGoneOwnGroup},
	{"profile comes late", nil, profileLate},
	{"reboot", nil, reboot},
}

func (s *scene) dropProfile() {
	s.Helper()
	s.must(s.Cluster.Delete(s.Context(patience), "NnfStorageProfile", "default", s.Profile))
}

func (s *scene) dropRecords() {
	s.Helper()
	for _, file := range s.records() {
		s.must(os.Remove(file))
	}
}

// profileGone: workflows delete their profile before the unmount is through.
// The record knows the commands, hooks too.
func profileGone(s *scene) {
	s.UseProfile(s.hookProfile())
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.dropProfile()
	s.must(s.ClearLog())
	s.Want("one", "unmounted")
	s.Await("one", "unmounted")
	s.unmounted(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.Delete("one")
	s.ends()
}

// profileGoneRestart: a daemon that comes back finds no profile. What is
// mounted stays mounted and is not called failed.
func profileGoneRestart(s *scene) {
	s.UseProfile(s.hookProfile())
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.stops()
	s.dropProfile()
	s.run("--log-level=debug")
	s.logged("ClientMount is mounted", "one")
	if o := s.get("one"); !o.Ready("mounted") || o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(m)
	s.must(s.ClearLog())
	s.Delete("one")
	s.unmounted(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.ends()
}

// recordGone: with neither, the names are computed and the shipped commands
// are used.
func recordGone(s *scene) {
	m := s.ready()
	s.withoutAnything(m)
}

func recordGoneOwnGroup(s *scene) {
	s.UseProfile(world.ProfileSpec{NotShared: true})
	vg, lv := world.VolumeNames(s.Owner, "0", 3, false)
	v, err := s.AddVolume(vg, lv, lab.VolumeOptions{Raw: s.k.file, Shared: s.k.locks})
	s.must(err)
	s.volumes[3] = v
	s.run()
	s.withoutAnything(s.k.spec(s.Path("m3"), 3))
}

func (s *scene) withoutAnything(m world.MountSpec) {
	s.Helper()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.stops()
	s.dropProfile()
	s.dropRecords()
	s.must(s.ClearLog())
	s.run()
	s.failed("one", "Major", "unable to get file system information", s.Profile)
	s.mounted(m) // whatever is wrong, a mounted file system stays
	s.called()
	s.Want("one", "unmounted")
	s.Await("one", "unmounted")
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	s.notMounted(m)
	// Nothing tells any more what was made for the mount.
	s.must(os.RemoveAll(s.Base))
	s.ends()
}

// profileLate: an object may be seen before its profile; it is mounted by
// itself when the profile is there.
func profileLate(s *scene) {
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: unable to get file system information", s.Profile)
	s.called()
	s.UseProfile(world.ProfileSpec{})
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// reboot: the kernel forgot everything, the API server nothing, and the record
// went with the memory that held it. The whole sequence runs again.
func reboot(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.stops()
	s.must(s.Tool("umount", m.Path))
	s.must(s.Reboot())
	s.dropRecords()
	s.must(s.ClearLog())
	s.run("--log-level=debug")
	s.logged("ClientMount is mounted", "one")
	s.mounted(m)
	if got, want := s.commands(), s.words(s.k.mount, m); !slices.Equal(got, want) {
		s.Errorf("called %q, want %q", got, want)
	}
	s.Delete("one")
	s.notMounted(m)
	s.must(os.RemoveAll(s.Base)) // nothing tells any more that the target was ours
	s.ends()
}
