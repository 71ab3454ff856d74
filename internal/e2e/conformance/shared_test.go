package conformance

import (
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// soon bounds what must follow immediately from an event, without a change of the object
// and without a long pause before a retry.
const soon = 5 * time.Second

// Several ClientMounts of one node that use the same volume, or the same path.
var sharedBehaviours = []behaviour{
	{"shared mount, the first is unmounted first", nil, shared(leave{first: 0})},
	{"shared mount, the first is deleted first, daemon killed", nil, shared(leave{first: 0, deleted: true, killed: true})},
	{"shared mount, the second is unmounted first, daemon killed", nil, shared(leave{first: 1, killed: true})},
	{"shared mount, the second is deleted first", nil, shared(leave{first: 1, deleted: true})},
	{"one volume at two paths, the first is unmounted first", nil, twoPaths(leave{first: 0})},
	{"one volume at two paths, the second is deleted first, daemon killed", nil, twoPaths(leave{first: 1, deleted: true, killed: true})},
	{"one volume at two paths of one object", nil, twoPathsOneObject},
	{"path of another ClientMount", nil, conflict("p", "p")},
	{"path above that of another ClientMount", nil, conflict("p/m", "p")},
	{"path below that of another ClientMount", nil, conflict("p", "p/m")},
	{"outer path before the inner one", directories, outerFirst},
}

// A leave describes how one of two ClientMounts releases their common volume.
type leave struct {
	first   int  // the one that is unmounted first
	deleted bool // deleted while mounted, instead of unmounted and then deleted
	killed  bool // the daemon is killed and started again before and after
}

var users = []string{"first-user", "second-user"}

// both mounts the same persistent storage for two workflows. states returns what was
// published for the one that stays.
func (s *env) both(l leave, list [2]fixture.MountSpec) (states func() []string) {
	s.Helper()
	s.run("--log-level=debug")
	states = s.follow(users[1-l.first])
	for i, name := range users {
		s.Apply(fixture.ClientMount(name, s.Node, fixture.ClientMountSpec{
			Profile: s.Profile, OwnerUID: s.Owner, Workflow: "job" + string('7'+rune(i)), Mounts: list[i : i+1],
		}))
		s.Await(name, "mounted")
	}
	return states
}

// leaves unmounts or deletes one of the two.
func (s *env) leaves(name string, l leave) {
	s.Helper()
	s.Must(s.ClearLog())
	if l.deleted {
		s.Delete(name)
		return
	}
	s.Want(name, "unmounted")
	if o := s.Await(name, "unmounted"); o.Severity() != "" {
		s.Errorf("%s: status %v", name, o["status"])
	}
}

// again kills the daemon, starts it and waits until it has reconciled a mounted object.
func (s *env) again(name string) {
	s.Helper()
	s.d.Kill9()
	s.run("--log-level=debug")
	s.logged("ClientMount is mounted", name)
}

// ran returns the calls since the log was cleared that start with one of the texts.
func (s *env) ran(starts ...string) (list []string) {
	s.Helper()
	for _, c := range s.commands() {
		if slices.ContainsFunc(starts, func(p string) bool { return strings.HasPrefix(c, p) }) {
			list = append(list, c)
		}
	}
	return list
}

// never fails the test if a call starts with one of the texts.
func (s *env) never(starts ...string) {
	s.Helper()
	for _, c := range s.ran(starts...) {
		s.Errorf("called: %s", c)
	}
}

// Calls that would remove a volume from all its users.
var takingDown = []string{"lvchange --activate n", "vgchange --lock-stop", "dlm_tool preDeactivate", "dlm_tool postDeactivate"}

// inUse checks that an object is ready and mounted, and that its volume is active.
func (s *env) inUse(name string, m fixture.MountSpec) {
	s.Helper()
	s.mounted(m)
	if v := s.volumes[m.Index]; v != nil {
		if active, err := v.Active(); err != nil || !active {
			s.Errorf("%s/%s is in use and not active: %v", v.VG, v.LV, err)
		}
	}
	if o := s.get(name); !o.Ready("mounted") || o.Severity() != "" {
		s.Errorf("%s: status %v", name, o["status"])
	}
}

// steady checks that an object stayed mounted and ready until its desired state changed.
func (s *env) steady(states []string) {
	s.Helper()
	first := slices.Index(states, "held mounted:true all")
	unsteady := func(t string) bool { return strings.Contains(t, " mounted:false") || strings.Contains(t, "Major") }
	if first < 0 || slices.ContainsFunc(states[first+1:], unsteady) {
		s.Errorf("published for the ClientMount that keeps the volume:\n\t%s", strings.Join(states, "\n\t"))
	}
}

// downCalled checks that the whole unmount sequence of an entry was run.
func (s *env) downCalled(m fixture.MountSpec) {
	s.Helper()
	var got []string
	for _, c := range s.commands() {
		if !strings.HasPrefix(c, "dlm_tool") {
			got = append(got, c)
		}
	}
	if want := s.words(s.k.unmount, m); !slices.Equal(got, want) {
		s.Errorf("the last unmount called %q, want %q", got, want)
	}
	for _, list := range s.k.down {
		if n := len(s.ran("dlm_tool " + list + " again")); n != 1 {
			s.Errorf("the last unmount ran the %s hooks %d times", list, n)
		}
	}
}

// shared: two ClientMounts have the same volume at the same path. It is mounted
// once and stays until the last of them is unmounted.
func shared(l leave) func(*env) {
	return func(s *env) {
		s.UseProfile(s.hookProfile())
		m := s.storage(3, lab.VolumeOptions{})
		states := s.both(l, [2]fixture.MountSpec{m, m})
		s.mounted(m)
		if list := s.ran("mount "); len(list) != 1 {
			s.Errorf("mounted by %q", list)
		}
		leaver, stayer := users[l.first], users[1-l.first]
		if l.killed {
			s.again(stayer)
			s.logged("ClientMount is mounted", leaver)
		}
		s.leaves(leaver, l)
		s.inUse(stayer, m)
		s.never(append([]string{"umount"}, takingDown...)...)
		if l.killed {
			s.again(stayer)
			s.inUse(stayer, m)
			s.never(append([]string{"mount", "umount"}, takingDown...)...)
		}
		s.leaves(stayer, l)
		s.unmounted(m)
		s.downCalled(m)
		s.Delete(leaver)
		s.Delete(stayer)
		s.steady(states())
		s.ends()
	}
}

// twoPaths: two ClientMounts have the same volume at different paths. Each
// unmounts its own path, and only the last one deactivates the volume.
func twoPaths(l leave) func(*env) {
	return func(s *env) {
		s.UseProfile(s.hookProfile())
		m := s.storage(3, lab.VolumeOptions{})
		list := [2]fixture.MountSpec{m, m}
		list[1].Path = s.Path("elsewhere")
		states := s.both(l, list)
		leaver, stayer := users[l.first], users[1-l.first]
		goes, stays := list[l.first], list[1-l.first]
		s.mounted(goes)
		s.mounted(stays)
		if l.killed {
			s.again(stayer)
		}
		s.leaves(leaver, l)
		s.unmounted(goes)
		s.inUse(stayer, stays)
		if got := s.ran("umount"); !slices.Equal(got, []string{"umount " + goes.Path}) {
			s.Errorf("called %q, want umount %s", got, goes.Path)
		}
		s.never(takingDown...)
		if l.killed {
			s.again(stayer)
			s.inUse(stayer, stays)
		}
		s.leaves(stayer, l)
		s.unmounted(stays)
		s.downCalled(stays)
		s.Delete(leaver)
		s.Delete(stayer)
		s.steady(states())
		s.removeBase() // the object that created it was unmounted first
		s.ends()
	}
}

// twoPathsOneObject: the volume is deactivated after the last unmount, not
// between the two.
func twoPathsOneObject(s *env) {
	m := s.ready()
	other := m
	other.Path = s.Path("elsewhere")
	s.MountAndWait("one", m, other)
	s.mounted(m)
	s.mounted(other)
	s.Must(s.ClearLog())
	s.Unmount("one")
	s.unmounted(m)
	s.unmounted(other)
	got := s.ran("umount", "lvchange", "vgchange")
	want := []string{"umount " + other.Path}
	for _, line := range s.words(s.k.unmount, m) {
		if line != "lvs" && line != "vgs" {
			want = append(want, line)
		}
	}
	if !slices.Equal(got, want) {
		s.Errorf("called %q, want %q", got, want)
	}
	s.Delete("one")
	s.ends()
}

// goneSoon deletes an object for which nothing is mounted, and waits until it is gone.
func (s *env) goneSoon(name string) {
	s.Helper()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, name))
	if err := s.Cluster.WaitGone(s.Context(soon), "ClientMount", s.Node, name); err != nil {
		s.Fatalf("nothing was mounted for %s and it still exists: %v; the status is %v", name, err, s.get(name)["status"])
	}
}

// conflict: other ClientMounts have another volume at the path of a ClientMount, above it
// or below it. They are refused with the name of that ClientMount, and nothing is mounted
// or activated for them. They can be deleted at any time, and are mounted when the path is
// free.
func conflict(has, wants string) func(*env) {
	return func(s *env) {
		s.UseProfile(fixture.ProfileSpec{})
		tenant, late := s.storage(3, lab.VolumeOptions{}), s.storage(4, lab.VolumeOptions{})
		tenant.Path, late.Path = s.Path(has), s.Path(wants)
		s.run()
		s.MountAndWait("tenant", tenant)
		s.Must(s.ClearLog())
		for _, name := range []string{"late", "too-late"} {
			s.Mount(name, late)
			o := s.failed(name, "Major", "mount/unmount failed: ", "tenant", tenant.Path)
			if o.At("status", "mounts", 0, "ready") != false {
				s.Errorf("%s: status %v", name, o["status"])
			}
		}
		s.Want("too-late", "unmounted")
		_, err := s.Cluster.WaitStatus(s.Context(soon), s.Node, "too-late", func(o lab.Object) bool { return o.Ready("unmounted") })
		s.Must(err)
		s.goneSoon("too-late")

		s.never("mount", "umount", "lvchange", "vgchange")

		// After a restart with only the records they are still refused.
		s.d.Kill9()
		s.run()
		s.logged("ClientMount failed", "late")
		s.Mount("latest", late)
		s.failed("latest", "Major", "tenant", tenant.Path)
		s.goneSoon("latest")
		s.inUse("tenant", tenant)
		s.never("mount", "umount", "lvchange", "vgchange --lock-stop") // a start does not affect mounts

		s.Unmount("tenant")
		o, err := s.Cluster.WaitStatus(s.Context(soon), s.Node, "late", func(o lab.Object) bool { return o.Ready("mounted") })
		if err != nil {
			s.Fatalf("the path is free and the object late is not mounted: %v; the status is %v", err, o["status"])
		}
		s.inUse("late", late)
		s.Delete("tenant")
		s.inUse("late", late)
		s.Delete("late")
		s.unmounted(late)
		s.ends()
	}
}

// outerFirst: the order in which both mounts are visible. A restart mounts neither again,
// and the inner one is unmounted first.
func outerFirst(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	outer, inner := s.storage(0, lab.VolumeOptions{}), s.storage(1, lab.VolumeOptions{})
	inner.Path = filepath.Join(outer.Path, "in", "ner")
	s.run()
	s.MountAndWait("one", outer, inner)
	s.Must(s.ClearLog())
	s.again("one")
	s.never("mount", "umount", "lvchange")
	s.mounted(outer)
	s.mounted(inner)
	s.Must(s.ClearLog())
	s.Delete("one")
	if got, want := s.ran("umount"), []string{"umount " + inner.Path, "umount " + outer.Path}; !slices.Equal(got, want) {
		s.Errorf("called %q, want %q", got, want)
	}
	s.ends()
}
