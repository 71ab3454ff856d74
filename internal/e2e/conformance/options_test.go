package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var optionBehaviours = []behaviour{
	{"options of the site", directories, func(s *env) { s.options("", "", "nosuid", "nodev") }},
	{"options of the site, changed", directories, func(s *env) { s.options(`mount.options = ["noexec"]`, "", "noexec") }},
	{"no options of the site", directories, func(s *env) { s.options("mount.options = []", "") }},
	{"options of the profile override", xfsOnly, func(s *env) { s.options("", "-o suid", "nodev") }},
	{"a raw device takes no options", rawOnly, func(s *env) { s.options("", "") }},
	{"a root of the site", nil, siteRoot},
	{"no unmount command in the profile", nil, noUnmountCommand},
	{"no unmount command, deleted", nil, noUnmountDeleted},
}

// options checks the options that the mount table shows.
func (s *env) options(config, profile string, want ...string) {
	s.Helper()
	m := s.readyWith(fixture.ProfileSpec{Options: profile}, "--config="+s.write(config))
	s.MountAndWait("one", m)
	s.mounted(m)
	have, _, err := s.MountAt(m.Path)
	s.Must(err)
	var got []string
	for _, o := range []string{"nosuid", "nodev", "noexec"} {
		if slices.Contains(strings.Split(have.Options, ","), o) {
			got = append(got, o)
		}
	}
	// A bind mount has the options of its origin, the /dev of the test.
	if !s.k.file && !slices.Equal(got, want) {
		s.Errorf("%s has the options %q, want %q", m.Path, got, want)
	}
	if s.k.file && !slices.Contains(s.commands(), s.words([]string{"mount -t none -o bind D P"}, m)[0]) {
		s.Errorf("called %q", s.commands())
	}
	s.Delete("one")
	s.unmounted(m)
	s.ends()
}

// siteRoot: with another mount.roots, mounts are allowed only there.
func siteRoot(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.run("--config=" + s.write(`mount.roots = ["`+m.Path+`"]`))
	s.Mount("one", m)
	s.failed("one", "Fatal", m.Path, "mount.roots")
	if c := s.commands(); len(c) > 0 {
		s.Errorf("called %q", c)
	}
	s.Delete("one")
	m.Path += "/below"
	s.MountAndWait("two", m)
	s.mounted(m)
	s.Delete("two")
	s.unmounted(m)
	s.ends()
}

// noUnmountCommand: the file system is unmounted with umount(8), and the status is
// published only after that.
func noUnmountCommand(s *env) {
	m := s.readyWith(fixture.ProfileSpec{NoUnmount: true})
	s.MountAndWait("one", m)
	s.Must(s.ClearLog())
	s.Must(s.Fault("umount", lab.Fault{Match: m.Path, Exit: 1, Stderr: "umount: injected failure"}))
	s.Want("one", "unmounted")
	if o := s.failed("one", "Major", "unable to unmount file system", "injected failure"); readiness(o) != "[false]" {
		s.Errorf("status %v of a file system that is still mounted", o["status"])
	}
	s.mounted(m)
	s.Must(s.ClearFaults())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

func noUnmountDeleted(s *env) {
	m := s.readyWith(fixture.ProfileSpec{NoUnmount: true})
	s.MountAndWait("one", m)
	s.Must(s.ClearLog())
	s.Delete("one")
	s.unmounted(m)
	s.called(s.words(s.k.unmount, m)...)
	s.ends()
}

// Test clusters have no storage: in mode kind the daemon creates links, in mode mock it
// only reports.
var modeBehaviours = []behaviour{
	{"mode kind, by flag", nil, func(s *env) { s.linked(lab.Spec{Args: []string{"--mode=kind"}}) }},
	{"mode kind, by environment", xfsOnly, func(s *env) { s.linked(lab.Spec{Env: []string{"ENVIRONMENT=kind"}}) }},
	{"mode kind, existing file", xfsOnly, linkBlocked},
	{"mode mock, by flag", nil, func(s *env) { s.mocked(lab.Spec{Args: []string{"--mock"}}) }},
	{"mode mock, by environment", xfsOnly, func(s *env) { s.mocked(lab.Spec{Env: []string{"NNF_TEST_ENVIRONMENT=1"}}) }},
}

// inMode runs the daemon with hooks in the profile, none of which must be called.
func (s *env) inMode(o lab.Spec) fixture.MountSpec {
	s.Helper()
	s.UseProfile(s.hookProfile())
	s.with(o)
	return s.k.spec(s.Path("m3"), 3)
}

// linkTarget returns the target of the link of an entry.
func (s *env) linkTarget(m fixture.MountSpec) string {
	name := "default-job7-0-" + s.k.typ + "-0"
	if s.k.typ == "lustre" {
		name = "job7-0"
	}
	return filepath.Join(s.Runtime+"-storage", fmt.Sprintf("%s-%d", name, m.Index))
}

func (s *env) linked(o lab.Spec) {
	s.Helper()
	o.Env = append(o.Env, "MOCK_FILE_SYSTEM_PATH="+s.Runtime+"-storage")
	m := s.inMode(o)
	for range 2 {
		s.MountAndWait("one", m)
		if have, err := os.Readlink(m.Path); err != nil || have != s.linkTarget(m) {
			s.Errorf("%s leads to %q (%v), want %s", m.Path, have, err, s.linkTarget(m))
		}
		s.Unmount("one")
		s.unmounted(m)
		s.Delete("one")
	}
	s.called()
	s.removeBase()
	s.ends()
}

// linkBlocked: a file or link of another program is neither replaced nor removed.
func linkBlocked(s *env) {
	m := s.inMode(lab.Spec{Args: []string{"--mode=kind"}})
	s.Must(os.MkdirAll(s.Base, 0o755))
	s.Must(os.Symlink("/elsewhere", m.Path))
	s.Mount("one", m)
	s.failed("one", "Major", "unable to mount file system", m.Path+" links to /elsewhere")
	s.Must(os.Remove(m.Path))
	s.Await("one", "mounted")
	s.Must(os.Remove(m.Path))
	s.Must(os.WriteFile(m.Path, []byte("precious"), 0o600))
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", m.Path)
	if text, err := os.ReadFile(m.Path); string(text) != "precious" {
		s.Errorf("the file is now %q (%v)", text, err)
	}
	s.Must(os.Remove(m.Path))
	s.Await("one", "unmounted")
	s.Delete("one")
	s.removeBase()
	s.ends()
}

// mocked: the status is ready, and nothing was mounted.
func (s *env) mocked(o lab.Spec) {
	s.Helper()
	m := s.inMode(o)
	s.MountAndWait("one", m)
	s.unmounted(m)
	s.Unmount("one")
	s.Delete("one")
	s.called()
	s.ends()
}
