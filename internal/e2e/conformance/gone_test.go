package conformance

import (
	"os"
	"slices"
	"strings"

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

func (s *env) dropProfile() {
	s.Helper()
	s.Must(s.Cluster.Delete(s.Context(patience), "NnfStorageProfile", "default", s.Profile))
}

func (s *env) dropRecords() {
	s.Helper()
	for _, file := range s.records() {
		s.Must(os.Remove(file))
	}
}

// profileGone: workflows delete their profile before the unmount is through.
// The record knows the commands, hooks too.
func profileGone(s *env) {
	m := s.readyWith(s.hookProfile())
	s.MountAndWait("one", m)
	s.dropProfile()
	s.Must(s.ClearLog())
	s.Unmount("one")
	s.unmounted(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.Delete("one")
	s.ends()
}

// profileGoneRestart: a daemon that comes back finds no profile. What is
// mounted stays mounted and is not called failed.
func profileGoneRestart(s *env) {
	m := s.readyWith(s.hookProfile())
	s.MountAndWait("one", m)
	s.stops()
	s.dropProfile()
	s.run("--log-level=debug")
	s.logged("ClientMount is mounted", "one")
	if o := s.get("one"); !o.Ready("mounted") || o.Severity() != "" {
		s.Errorf("status %v", o["status"])
	}
	s.mounted(m)
	s.Must(s.ClearLog())
	s.Delete("one")
	s.unmounted(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.ends()
}

// recordGone: with neither, the names are computed and the shipped commands
// are used.
func recordGone(s *env) {
	m := s.ready()
	s.withoutAnything(m)
}

func recordGoneOwnGroup(s *env) {
	s.UseProfile(world.ProfileSpec{NotShared: true})
	vg, lv := world.VolumeNames(s.Owner, "0", 3, false)
	v, err := s.AddVolume(vg, lv, lab.VolumeOptions{Raw: s.k.file, Shared: s.k.locks})
	s.Must(err)
	s.volumes[3] = v
	s.run()
	s.withoutAnything(s.k.spec(s.Path("m3"), 3))
}

func (s *env) withoutAnything(m world.MountSpec) {
	s.Helper()
	s.MountAndWait("one", m)
	s.stops()
	s.dropProfile()
	s.dropRecords()
	s.Must(s.ClearLog())
	s.run()
	s.failed("one", "Major", "unable to get file system information", s.Profile)
	s.mounted(m) // whatever is wrong, a mounted file system stays
	s.called()
	s.Unmount("one")
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	s.notMounted(m)
	// Nothing tells any more what was made for the mount.
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// profileLate: an object may be seen before its profile; it is mounted by
// itself when the profile is there.
func profileLate(s *env) {
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
func reboot(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	s.stops()
	s.Must(s.Tool("umount", m.Path))
	s.Must(s.Reboot())
	s.dropRecords()
	s.Must(s.ClearLog())
	s.run("--log-level=debug")
	s.logged("ClientMount is mounted", "one")
	s.mounted(m)
	if got, want := s.commands(), s.words(s.k.mount, m); !slices.Equal(got, want) {
		s.Errorf("called %q, want %q", got, want)
	}
	s.Delete("one")
	s.notMounted(m)
	s.Must(os.RemoveAll(s.Base)) // nothing tells any more that the target was ours
	s.ends()
}

var orphanBehaviours = []behaviour{
	{"orphan is reported", nil, orphanReported},
	{"orphan is unmounted", nil, orphanUnmounted},
	{"object stripped while the daemon runs", nil, orphanAlive},
}

// vanish takes the object away although it is held, as the rabbit does for
// nodes that it thinks are offline.
func (s *env) vanish(name string) {
	s.Helper()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, name))
	if err := s.Cluster.DropFinalizers(s.Context(patience), "ClientMount", s.Node, name); err != nil && !lab.IsNotFound(err) {
		s.Fatal(err)
	}
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, name))
}

const orphanLine = "mounts of a ClientMount that no longer exists"

// orphanReported: without other orders data of a job is not taken away.
func orphanReported(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	s.stops()
	s.vanish("one")
	s.Must(s.ClearLog())
	s.run()
	f := s.logged(orphanLine, "one")
	if f["paths"] != m.Path || f["workflow"] != "job7" || !strings.Contains(f["hint"].(string), "orphans") || f["level"] != "WARN" {
		s.Errorf("the line: %v", f)
	}
	_, err := s.d.WaitNotice(s.Context(patience), "STATUS=0 mounts ready for 0 ClientMounts, 1 orphaned; API server answers")
	s.Must(err)
	s.mounted(m)
	s.called()
	s.stops()
	s.run("--orphans=unmount") // the administrator decides
	s.forgotten(m)
	s.ends()
}

// forgotten waits until an orphan is gone, by the status line.
func (s *env) forgotten(m world.MountSpec) {
	s.Helper()
	s.logged("unmounted what a deleted ClientMount left", "one")
	_, err := s.d.WaitNotice(s.Context(patience), "STATUS=0 mounts ready for 0 ClientMounts; API server answers")
	s.Must(err)
	s.unmounted(m)
}

func orphanUnmounted(s *env) {
	m := s.readyWith(s.hookProfile())
	s.MountAndWait("one", m)
	s.stops()
	s.vanish("one")
	s.Must(s.ClearLog())
	s.run("--orphans=unmount")
	s.forgotten(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.ends()
}

// orphanAlive: the finalizer is stripped under a running daemon. The mount is
// an orphan from then on, unless the daemon was faster with the unmount.
func orphanAlive(s *env) {
	m := s.ready("--orphans=unmount")
	s.MountAndWait("one", m)
	s.Must(s.Cluster.DropFinalizers(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.forgotten(m)
	s.ends()
}
