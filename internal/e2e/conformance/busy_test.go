package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var busyBehaviours = []behaviour{
	{"busy: working directory", directories, func(s *scene) { busy(s, lab.HoldCWD, "cwd") }},
	{"busy: open file", directories, func(s *scene) { busy(s, lab.HoldOpen, "fd") }},
	{"busy: mapped file", directories, func(s *scene) { busy(s, lab.HoldMmap, "mmap") }},
	{"busy: mount below ours", directories, busyNested},
	{"busy: device open", rawOnly, busyRaw},
	{"busy: other namespace", lvmOnly, busyNamespace},
}

// busy: the status and the log say who it is; nothing is killed, and the
// unmount follows by itself when the holder lets go.
func busy(s *scene, how, kind string) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	h, err := s.Busy(how, m.Path)
	s.must(err)
	defer h.Release()
	s.Want("one", "unmounted")
	held := h.Path
	if how == lab.HoldCWD {
		held = m.Path
	}
	s.failed("one", "Major", "unable to unmount file system: could not unmount file system "+m.Path, "busy",
		fmt.Sprintf("in use by pid %d (uid 0, standin) %s %s", h.PID, kind, held))
	f := s.logged("mount is in use", "one")
	want := map[string]any{
		"holder_pid": float64(h.PID), "holder_uid": float64(0), "holder_command": "standin", "holder_kind": kind,
		"holder_path": held, "mount_path": m.Path, "workflow": "job7",
	}
	for field, v := range want {
		if f[field] != v {
			s.Errorf("the log says %s=%v, want %v", field, f[field], v)
		}
	}
	s.mounted(m)
	s.must(h.Release())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNested: a mount below ours is named; it is not ours and stays.
func busyNested(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	h, err := s.Busy(lab.HoldNested, m.Path)
	s.must(err)
	s.must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "unable to unmount file system", "busy", "mount "+filepath.Join(m.Path, "nested"))
	s.logged("mount is in use", "one")
	s.mounted(m)
	if _, ok, _ := s.MountAt(h.Path); !ok {
		s.Errorf("the mount below was unmounted")
	}
	s.must(h.Release())
	s.must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.unmounted(m)
	s.ends()
}

// busyRaw: a bound device node is held by who has it open through the mount.
func busyRaw(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	f, err := os.Open(m.Path)
	s.must(err)
	defer f.Close()
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", "busy", fmt.Sprintf("in use by pid %d (uid 0, ", os.Getpid()), "fd "+m.Path)
	s.mounted(m)
	s.must(f.Close())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNamespace: a copy of the mount in another mount namespace lets the
// unmount succeed and keeps the device; the deactivation fails until it goes.
// A bound node is no user of its device, so it holds nothing up.
func busyNamespace(s *scene) {
	m := s.ready()
	s.Mount("one", m)
	s.Await("one", "mounted")
	h, err := s.Busy(lab.HoldNamespace, m.Path)
	s.must(err)
	defer h.Release()
	s.must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	if !s.k.file {
		s.failed("one", "Major", "mount/unmount failed: unable to deactivate block device: command: lvchange", "in use")
		f := s.logged("state of the devices after a failed deactivation", "one")
		if text := fmt.Sprint(f["dlm"]); !strings.Contains(text, "dlm lockspaces") {
			s.Errorf("no diagnosis of locks: %v", f)
		}
		s.unmounted(m)
	}
	s.must(h.Release())
	s.must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.ends()
}
