package conformance

import (
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

var optionBehaviours = []behaviour{
	{"options of the site", directories, func(s *scene) { s.options("", "", "nosuid", "nodev") }},
	{"options of the site, changed", directories, func(s *scene) { s.options(`mount.options = ["noexec"]`, "", "noexec") }},
	{"no options of the site", directories, func(s *scene) { s.options("mount.options = []", "") }},
	{"options of the profile win", xfsOnly, func(s *scene) { s.options("", "-o suid", "nodev") }},
	{"a raw device takes no options", rawOnly, func(s *scene) { s.options("", "") }},
	{"a root of the site", nil, siteRoot},
	{"no unmount command in the profile", nil, noUnmountCommand},
	{"no unmount command, deleted", nil, noUnmountDeleted},
}

// options checks which of the options that can be seen in the mount table are
// there.
func (s *scene) options(config, profile string, want ...string) {
	s.Helper()
	s.UseProfile(world.ProfileSpec{Options: profile})
	m := s.storage(3, lab.VolumeOptions{})
	s.run("--config=" + s.write(config))
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.mounted(m)
	have, _, err := s.MountAt(m.Path)
	s.must(err)
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

// siteRoot: a site that mounts elsewhere says where, and then only there.
func siteRoot(s *scene) {
	s.UseProfile(world.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	s.run("--config=" + s.write(`mount.roots = ["`+m.Path+`"]`))
	s.Mount("one", m)
	s.failed("one", "Fatal", m.Path, "mount.roots")
	if c := s.commands(); len(c) > 0 {
		s.Errorf("called %q", c)
	}
	s.Delete("one")
	m.Path += "/below"
	s.Mount("two", m)
	s.Await("two", "mounted")
	s.mounted(m)
	s.Delete("two")
	s.unmounted(m)
	s.ends()
}

// noUnmountCommand: what the profile mounted is unmounted by umount(8), and only
// then reported.
func noUnmountCommand(s *scene) {
	s.UseProfile(world.ProfileSpec{NoUnmount: true})
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.must(s.ClearLog())
	s.must(s.Fault("umount", lab.Fault{Match: m.Path, Exit: 1, Stderr: "umount: told to fail"}))
	s.Want("one", "unmounted")
	if o := s.failed("one", "Major", "unable to unmount file system", "told to fail"); readiness(o) != "[false]" {
		s.Errorf("status %v of a file system that is still mounted", o["status"])
	}
	s.mounted(m)
	s.must(s.ClearFaults())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

func noUnmountDeleted(s *scene) {
	s.UseProfile(world.ProfileSpec{NoUnmount: true})
	m := s.storage(3, lab.VolumeOptions{})
	s.run()
	s.Mount("one", m)
	s.Await("one", "mounted")
	s.must(s.ClearLog())
	s.Delete("one")
	s.unmounted(m)
	s.called(s.words(s.k.unmount, m)...)
	s.ends()
}
