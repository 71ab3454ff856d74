package conformance

import (
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var targetBehaviours = []behaviour{
	{"path below a symlink", nil, func(s *scene) {
		s.unsafe("is a symlink", func(elsewhere, at string) { s.must(os.Symlink(elsewhere, at)) })
	}},
	{"parent that others can write", nil, func(s *scene) {
		s.unsafe("can be changed by others than root", func(_, at string) {
			s.must(os.Mkdir(at, 0o755))
			s.must(os.Chmod(at, 0o777))
		})
	}},
	{"parent of another user", nil, func(s *scene) {
		s.unsafe("belongs to uid 1234", func(_, at string) {
			s.must(os.Mkdir(at, 0o755))
			s.must(os.Chown(at, 1234, 1234))
		})
	}},
	{"parent is a file", nil, func(s *scene) {
		s.unsafe("it is a regular file", func(_, at string) { s.must(os.WriteFile(at, nil, 0o644)) })
	}},
	{"target is a symlink", nil, symlinkTarget},
	{"target changed under the mount's feet", directories, parentChanged},
}

// unsafe: something below which nothing must be mounted is on the way to the
// target. Nothing is made behind it, and the mount follows when it is mended.
func (s *scene) unsafe(text string, make func(elsewhere, at string)) {
	s.Helper()
	m := s.ready()
	elsewhere := s.Runtime + "-elsewhere"
	s.must(os.MkdirAll(elsewhere, 0o755))
	s.must(os.MkdirAll(s.Base, 0o755))
	at := s.Path("trap")
	make(elsewhere, at)
	m.Path = filepath.Join(at, "x", "y")
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system: could not make the mount target: "+at, text)
	for _, dir := range []string{elsewhere, at} {
		if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
			s.Errorf("made in %s: %v", dir, list)
		}
	}
	s.untouched()
	s.must(os.RemoveAll(at))
	s.Await("one", "mounted")
	s.mounted(m)
	s.Delete("one")
	s.unmounted(m)
	s.must(os.Remove(s.Base))
	s.ends()
}

func symlinkTarget(s *scene) {
	m := s.ready()
	victim := s.Runtime + "-victim"
	s.must(os.WriteFile(victim, nil, 0o600))
	s.must(os.MkdirAll(s.Base, 0o755))
	s.must(os.Symlink(victim, m.Path))
	s.Mount("one", m)
	s.failed("one", "Major", "could not make the mount target: "+m.Path, "is a symlink")
	s.untouched()
	s.must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	if to, err := os.Readlink(m.Path); to != victim || err != nil {
		s.Errorf("the symlink was touched: %q %v", to, err)
	}
	s.must(os.RemoveAll(s.Base))
	s.ends()
}

// parentChanged: somebody moves the mount away and puts a symlink in the place
// of its parent. The unmount must not follow it: it finds nothing at the path.
func parentChanged(s *scene) {
	s.UseProfile(lab.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	m.Path = filepath.Join(s.Base, "p", "m")
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	victim := s.Runtime + "-victim"
	s.must(os.MkdirAll(filepath.Join(victim, "m"), 0o755))
	s.must(s.Tool("umount", m.Path))
	s.must(os.RemoveAll(filepath.Join(s.Base, "p")))
	s.must(os.Symlink(victim, filepath.Join(s.Base, "p")))
	s.Delete("one")
	if _, err := os.Stat(filepath.Join(victim, "m")); err != nil {
		s.Errorf("the directory behind the symlink was removed: %v", err)
	}
	s.must(os.RemoveAll(s.Base))
	s.ends()
}
