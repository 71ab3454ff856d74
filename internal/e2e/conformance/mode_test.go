package conformance

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Test clusters have no storage: contract clientmountd.md 7.4.
var modeBehaviours = []behaviour{
	{"mode kind, by flag", nil, func(s *scene) { s.linked(lab.Spec{Args: []string{"--mode=kind"}}) }},
	{"mode kind, by environment", xfsOnly, func(s *scene) { s.linked(lab.Spec{Env: []string{"ENVIRONMENT=kind"}}) }},
	{"mode kind, something in the way", xfsOnly, linkBlocked},
	{"mode mock, by flag", nil, func(s *scene) { s.mocked(lab.Spec{Args: []string{"--mock"}}) }},
	{"mode mock, by environment", xfsOnly, func(s *scene) { s.mocked(lab.Spec{Env: []string{"NNF_TEST_ENVIRONMENT=1"}}) }},
}

// inMode runs the daemon; hooks are there to show that none is called.
func (s *scene) inMode(o lab.Spec) world.MountSpec {
	s.Helper()
	s.UseProfile(s.hookProfile())
	s.with(o)
	return s.k.spec(s.Path("m3"), 3)
}

// linkTarget is where the link of an entry leads to.
func (s *scene) linkTarget(m world.MountSpec) string {
	name := "default-job7-0-" + s.k.typ + "-0"
	if s.k.typ == "lustre" {
		name = "job7-0"
	}
	return filepath.Join(s.Runtime+"-storage", fmt.Sprintf("%s-%d", name, m.Index))
}

func (s *scene) linked(o lab.Spec) {
	s.Helper()
	o.Env = append(o.Env, "MOCK_FILE_SYSTEM_PATH="+s.Runtime+"-storage")
	m := s.inMode(o)
	for range 2 {
		s.Mount("one", m)
		s.Await("one", "mounted")
		if have, err := os.Readlink(m.Path); err != nil || have != s.linkTarget(m) {
			s.Errorf("%s leads to %q (%v), want %s", m.Path, have, err, s.linkTarget(m))
		}
		s.Want("one", "unmounted")
		s.Await("one", "unmounted")
		s.unmounted(m)
		s.Delete("one")
	}
	s.called()
	s.removeBase()
	s.ends()
}

// linkBlocked: what somebody else put there is neither replaced nor removed.
func linkBlocked(s *scene) {
	m := s.inMode(lab.Spec{Args: []string{"--mode=kind"}})
	s.must(os.MkdirAll(s.Base, 0o755))
	s.must(os.Symlink("/elsewhere", m.Path))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", m.Path+" links to /elsewhere")
	s.must(os.Remove(m.Path))
	s.Await("one", "mounted")
	s.must(os.Remove(m.Path))
	s.must(os.WriteFile(m.Path, []byte("precious"), 0o600))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", m.Path)
	if text, err := os.ReadFile(m.Path); string(text) != "precious" {
		s.Errorf("the file became %q (%v)", text, err)
	}
	s.must(os.Remove(m.Path))
	s.Await("one", "unmounted")
	s.Delete("one")
	s.removeBase()
	s.ends()
}

// mocked: the status says done, and nothing was.
func (s *scene) mocked(o lab.Spec) {
	s.Helper()
	m := s.inMode(o)
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.unmounted(m)
	s.Want("one", "unmounted")
	s.Await("one", "unmounted")
	s.Delete("one")
	s.called()
	s.ends()
}
