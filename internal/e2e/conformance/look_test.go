package conformance

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// source is what the mount table shows as the source, and the table of
// commands calls D.
func (s *scene) source(index int) string {
	if v := s.volumes[index]; v != nil {
		return v.Node
	}
	return mgs + ":/" + fsName(index)
}

// words fills in a line of the kind's tables for an entry.
func (s *scene) words(lines []string, m world.MountSpec) []string {
	vg, lv := "", ""
	if v := s.volumes[m.Index]; v != nil {
		vg, lv = v.VG, v.LV
	}
	var out []string
	for _, line := range lines {
		words := strings.Fields(line)
		for i, w := range words {
			switch w {
			case "V":
				words[i] = vg
			case "V/L":
				words[i] = vg + "/" + lv
			case "D":
				words[i] = s.source(m.Index)
			case "P":
				words[i] = m.Path
			}
		}
		out = append(out, strings.Join(words, " "))
	}
	return out
}

// commands are the calls since the log was cleared, as a person would type
// them. Queries are named by program alone: what they ask for is checked, what
// they look like is the daemon's own business. Helpers of mount(8) are not
// calls of the daemon.
func (s *scene) commands() []string {
	s.Helper()
	calls, err := s.Log()
	s.must(err)
	var out []string
	for _, c := range calls {
		line := strings.Join(c.Argv, " ")
		switch c.Tool {
		case "mount.lustre", "mount.gfs2":
			continue
		case "lvs", "vgs":
			if !strings.Contains(line, "--nolock") || !strings.Contains(line, "--reportformat json") {
				s.Errorf("%s %s: it must neither take a lock nor be read by eye", c.Tool, line)
			}
			out = append(out, c.Tool)
		default:
			out = append(out, c.Tool+" "+line)
		}
	}
	return out
}

// called compares the calls with what they should be.
func (s *scene) called(want ...string) {
	s.Helper()
	if got := s.commands(); !slices.Equal(got, want) {
		s.Errorf("called:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
	s.must(s.ClearLog())
}

// mounted checks that exactly one mount of the entry is there, and its owner.
func (s *scene) mounted(m world.MountSpec) {
	s.Helper()
	all, err := s.Mounts()
	s.must(err)
	n := 0
	for _, have := range all {
		if have.Target != m.Path {
			continue
		}
		n++
		if s.k.mounted != "" && (have.Type != s.k.mounted || have.Source != s.source(m.Index)) {
			s.Errorf("%s: type %s from %s, want %s from %s", m.Path, have.Type, have.Source, s.k.mounted, s.source(m.Index))
		}
		if s.k.file && filepath.Base(have.Root) != filepath.Base(s.source(m.Index)) {
			s.Errorf("%s: bound from %s, want %s", m.Path, have.Root, s.source(m.Index))
		}
	}
	if n != 1 {
		s.Errorf("%s is mounted %d times", m.Path, n)
	}
}

// notMounted checks that nothing is mounted.
func (s *scene) notMounted(m world.MountSpec) {
	s.Helper()
	if have, ok, err := s.MountAt(m.Path); ok || err != nil {
		s.Errorf("%s is still mounted: %+v %v", m.Path, have, err)
	}
}

// unmounted checks that nothing is mounted and the target is gone.
func (s *scene) unmounted(m world.MountSpec) {
	s.Helper()
	s.notMounted(m)
	if _, err := os.Lstat(m.Path); !os.IsNotExist(err) {
		s.Errorf("the target %s was not removed: %v", m.Path, err)
	}
}

// owned checks the owner of what the object wants to be owned.
func (s *scene) owned(m world.MountSpec) {
	s.Helper()
	if !m.Own {
		return
	}
	st, err := os.Stat(m.Path)
	s.must(err)
	sys := st.Sys().(*syscall.Stat_t)
	if int(sys.Uid) != m.UID || int(sys.Gid) != m.GID || st.Mode()&os.ModeDevice == 0 {
		s.Errorf("%s: uid %d gid %d mode %v, want the device node with %d %d", m.Path, sys.Uid, sys.Gid, st.Mode(), m.UID, m.GID)
	}
}
