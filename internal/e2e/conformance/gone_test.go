package conformance

import (
	"os"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

var goneBehaviours = []behaviour{
	{"profile gone before the unmount", nil, profileGone},
	{"profile deleted, daemon restarted", nil, profileGoneRestart},
	{"profile and record gone", nil, recordGone},
	{"profile and record gone, group not shared", lvmOnly, recordGoneOwnGroup},
	{"profile created late", nil, profileLate},
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

// profileGone: the workflow deletes its profile before the unmount is complete. The record
// contains the commands, including hooks.
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

// profileGoneRestart: a restarted daemon finds no profile. Mounted file systems stay
// mounted and are not reported as failed.
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

// recordGone: without profile and record, the daemon computes the names and uses the
// default commands.
func recordGone(s *env) {
	m := s.ready()
	s.withoutAnything(m)
}

func recordGoneOwnGroup(s *env) {
	s.UseProfile(fixture.ProfileSpec{NotShared: true})
	vg, lv := fixture.VolumeNames(s.Owner, "0", 3, false)
	v, err := s.AddVolume(vg, lv, lab.VolumeOptions{Raw: s.k.file, Shared: s.k.locks})
	s.Must(err)
	s.volumes[3] = v
	s.run()
	s.withoutAnything(s.k.spec(s.Path("m3"), 3))
}

func (s *env) withoutAnything(m fixture.MountSpec) {
	s.Helper()
	s.MountAndWait("one", m)
	s.stops()
	s.dropProfile()
	s.dropRecords()
	s.Must(s.ClearLog())
	s.run()
	s.failed("one", "Major", "unable to get file system information", s.Profile)
	s.mounted(m) // a mounted file system stays despite the error
	s.called()
	s.Unmount("one")
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	s.notMounted(m)
	// There is no longer a trace of what was created for the mount.
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// profileLate: the object may be created before its profile; it is mounted when the profile
// exists.
func profileLate(s *env) {
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: unable to get file system information", s.Profile)
	s.called()
	s.UseProfile(fixture.ProfileSpec{})
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.ends()
}

// reboot: the mounts and the record in memory are lost, but the API server has the object.
// The whole sequence runs again.
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
	s.Must(os.RemoveAll(s.Base)) // there is no longer a sign that the daemon created the target
	s.ends()
}

var orphanBehaviours = []behaviour{
	{"orphan is reported", nil, orphanReported},
	{"orphan is unmounted", nil, orphanUnmounted},
	{"finalizer removed while the daemon runs", nil, orphanAlive},
}

// vanish removes the object despite its finalizer, as the rabbit does for nodes that it
// considers offline.
func (s *env) vanish(name string) {
	s.Helper()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, name))
	if err := s.Cluster.DropFinalizers(s.Context(patience), "ClientMount", s.Node, name); err != nil && !lab.IsNotFound(err) {
		s.Fatal(err)
	}
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, name))
}

const orphanLine = "found mounts of a ClientMount that no longer exists"

// orphanReported: by default, an orphan is not unmounted.
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
	s.shows("one", mountstate.Orphan)
	s.sick(mountstate.CauseOrphan, mountstate.ActionDrain, "orphaned for ", "ClientMount one no longer exists")
	s.late("one", mountstate.Unmounted, "orphaned for ")
	s.stops()
	s.sick(mountstate.CauseDaemon, mountstate.ActionWait, "clientmountd not running for ")
	s.run("--orphans=unmount") // set by the administrator
	s.forgotten(m)
	s.ends()
}

// forgotten waits until the status line shows no orphan.
func (s *env) forgotten(m fixture.MountSpec) {
	s.Helper()
	s.logged("unmounted file system of a deleted ClientMount", "one")
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

// orphanAlive: the finalizer is removed while the daemon runs. The mount then is an
// orphan, unless the daemon has unmounted it before.
func orphanAlive(s *env) {
	m := s.ready("--orphans=unmount")
	s.MountAndWait("one", m)
	s.Must(s.Cluster.DropFinalizers(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.forgotten(m)
	s.ends()
}
