package conformance

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var orphanBehaviours = []behaviour{
	{"orphan is reported", nil, orphanReported},
	{"orphan is unmounted", nil, orphanUnmounted},
	{"object stripped while the daemon runs", nil, orphanAlive},
}

// vanish takes the object away although it is held, as the rabbit does for
// nodes that it thinks are offline.
func (s *scene) vanish(name string) {
	s.Helper()
	s.must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, name))
	_, err := s.Cluster.Patch(s.Context(patience), "ClientMount", s.Node, name, lab.Object{"metadata": lab.Object{"finalizers": []any{}}})
	if err != nil && !lab.IsNotFound(err) {
		s.Fatal(err)
	}
	s.must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, name))
}

const orphanLine = "mounts of a ClientMount that no longer exists"

// orphanReported: without other orders data of a job is not taken away.
func orphanReported(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.stops()
	s.vanish("one")
	s.must(s.ClearLog())
	s.run()
	f := s.logged(orphanLine, "one")
	if f["paths"] != m.Path || f["workflow"] != "job7" || !strings.Contains(f["hint"].(string), "orphans") || f["level"] != "WARN" {
		s.Errorf("the line: %v", f)
	}
	_, err := s.d.WaitNotice(s.Context(patience), "STATUS=0 mounts ready for 0 ClientMounts, 1 orphaned; API server answers")
	s.must(err)
	s.mounted(m)
	s.called()
	s.stops()
	s.run("--orphans=unmount") // the administrator decides
	s.forgotten(m)
	s.ends()
}

// forgotten waits until an orphan is gone, by the status line.
func (s *scene) forgotten(m world.MountSpec) {
	s.Helper()
	s.logged("unmounted what a deleted ClientMount left", "one")
	_, err := s.d.WaitNotice(s.Context(patience), "STATUS=0 mounts ready for 0 ClientMounts; API server answers")
	s.must(err)
	s.unmounted(m)
}

func orphanUnmounted(s *scene) {
	s.UseProfile(s.hookProfile())
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.stops()
	s.vanish("one")
	s.must(s.ClearLog())
	s.run("--orphans=unmount")
	s.forgotten(m)
	_, unmount := s.withHooks(m)
	s.called(unmount...)
	s.ends()
}

// orphanAlive: the finalizer is stripped under a running daemon. The mount is
// an orphan from then on, unless the daemon was faster with the unmount.
func orphanAlive(s *scene) {
	m := s.ready("--orphans=unmount")
	s.Mount("one", m)
	s.Await("one", "mounted")
	_, err := s.Cluster.Patch(s.Context(patience), "ClientMount", s.Node, "one", lab.Object{"metadata": lab.Object{"finalizers": []any{}}})
	s.must(err)
	s.must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.forgotten(m)
	s.ends()
}
