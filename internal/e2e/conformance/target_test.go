package conformance

import (
	"os"
	"path/filepath"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var targetBehaviours = []behaviour{
	{"path below a symlink of root", nil, rootLink},
	{"path below a symlink of another user", nil, func(s *env) {
		s.unsafe("symlink", func(elsewhere, at string) {
			s.Must(os.Symlink(elsewhere, at))
			s.Must(os.Lchown(at, 1234, 1234))
		})
	}},
	{"path below a symlink in a directory that other users can write to", nil, func(s *env) {
		s.unsafe("symlink", func(elsewhere, at string) {
			s.Must(os.Mkdir(at, 0o755))
			s.Must(os.Chmod(at, 0o777|os.ModeSticky))
			s.Must(os.Symlink(elsewhere, filepath.Join(at, "x")))
		})
	}},
	{"parent that other users can write to", nil, func(s *env) {
		s.unsafe("can be changed by users other than root", func(_, at string) {
			s.Must(os.Mkdir(at, 0o755))
			s.Must(os.Chmod(at, 0o777))
		})
	}},
	{"parent of another user", nil, func(s *env) {
		s.unsafe("owned by uid 1234", func(_, at string) {
			s.Must(os.Mkdir(at, 0o755))
			s.Must(os.Chown(at, 1234, 1234))
		})
	}},
	{"parent is a file", nil, func(s *env) {
		s.unsafe("it is a regular file", func(_, at string) { s.Must(os.WriteFile(at, nil, 0o644)) })
	}},
	{"target is a symlink", nil, symlinkTarget},
	{"parent replaced by a symlink", directories, parentChanged},
}

// unsafe: a component of the path is not safe. Nothing is created behind it, and the mount
// is completed when the path is repaired.
func (s *env) unsafe(text string, make func(elsewhere, at string)) {
	s.Helper()
	m := s.ready()
	elsewhere := s.Runtime + "-elsewhere"
	s.Must(os.MkdirAll(elsewhere, 0o755))
	s.Must(os.MkdirAll(s.Base, 0o755))
	at := s.Path("trap")
	make(elsewhere, at)
	m.Path = filepath.Join(at, "x", "y")
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: ", at, text)
	for _, dir := range []string{elsewhere, at} {
		list, _ := os.ReadDir(dir)
		if list = slices.DeleteFunc(list, func(e os.DirEntry) bool { return e.Type() == os.ModeSymlink }); len(list) > 0 {
			s.Errorf("created in %s: %v", dir, list)
		}
	}
	s.untouched()
	s.Must(os.RemoveAll(at))
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.unmounted(m)
	s.Must(os.Remove(s.Base))
	s.ends()
}

// rootLink: a link of root in a directory of root is followed; on some systems, /mnt is a
// link to /var/mnt. The mount is at the target of the link, even if another object uses
// that path directly.
func rootLink(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m, other := s.storage(3, lab.VolumeOptions{}), s.storage(4, lab.VolumeOptions{})
	real := m
	real.Path, m.Path = s.Path("real/m"), s.Path("link/m")
	other.Path = real.Path
	s.Must(os.MkdirAll(s.Path("real"), 0o755))
	s.Must(os.Symlink(s.Path("real"), s.Path("link")))
	s.run()
	s.MountAndWait("tenant", m)
	s.mounted(real)
	s.Mount("late", other)
	s.failed("late", "Major", "tenant")
	s.goneSoon("late")
	s.Must(s.ClearLog())
	s.again("tenant")
	s.mounted(real)
	s.never("mount", "umount", "lvchange")
	s.Unmount("tenant")
	s.unmounted(real)
	s.Delete("tenant")
	if to, err := os.Readlink(s.Path("link")); to != s.Path("real") || err != nil {
		s.Errorf("the link was changed: %q %v", to, err)
	}
	s.Must(os.Remove(s.Path("real")))
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

func symlinkTarget(s *env) {
	m := s.ready()
	victim := s.Runtime + "-victim"
	s.Must(os.WriteFile(victim, nil, 0o600))
	s.Must(os.MkdirAll(s.Base, 0o755))
	s.Must(os.Symlink(victim, m.Path))
	s.Must(os.Lchown(m.Path, 1234, 1234))
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: ", m.Path, "symlink")
	s.untouched()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	if to, err := os.Readlink(m.Path); to != victim || err != nil {
		s.Errorf("the symlink was changed: %q %v", to, err)
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// parentChanged: another program moves the mount away and replaces its parent with a
// symlink. The unmount must not follow the symlink: it finds nothing at the path.
func parentChanged(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	m.Path = filepath.Join(s.Base, "p", "m")
	s.run()
	s.MountAndWait("one", m)
	victim := s.Runtime + "-victim"
	s.Must(os.MkdirAll(filepath.Join(victim, "m"), 0o755))
	s.Must(s.Tool("umount", m.Path))
	s.Must(os.RemoveAll(filepath.Join(s.Base, "p")))
	s.Must(os.Symlink(victim, filepath.Join(s.Base, "p")))
	s.Delete("one")
	if _, err := os.Stat(filepath.Join(victim, "m")); err != nil {
		s.Errorf("the directory behind the symlink was removed: %v", err)
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}
