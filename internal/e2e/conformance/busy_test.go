package conformance

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var busyBehaviours = []behaviour{
	{"busy: working directory", directories, func(s *env) { busy(s, lab.HoldCWD, "cwd") }},
	{"busy: open file", directories, func(s *env) { busy(s, lab.HoldOpen, "fd") }},
	{"busy: mapped file", directories, func(s *env) { busy(s, lab.HoldMmap, "mmap") }},
	{"busy: mount below ours", directories, busyNested},
	{"busy: device open", rawOnly, busyRaw},
	{"busy: other namespace", func(k *kind) bool { return k.lvm && !k.file }, busyNamespace},
}

// busy: the status and the log say who it is; nothing is killed, and the
// unmount follows by itself when the holder lets go.
func busy(s *env, how, kind string) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(how, m.Path)
	s.Must(err)
	defer h.Release()
	s.Want("one", "unmounted")
	held := h.Path
	if how == lab.HoldCWD {
		held = m.Path
	}
	s.failed("one", "Major", "unable to unmount file system: could not unmount file system "+m.Path, "busy",
		fmt.Sprintf("in use by pid %d (standin, uid 0", h.PID), fmt.Sprintf("): %s %s", kind, held))
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
	s.Must(h.Release())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNested: a mount below ours is named; it is not ours and stays.
func busyNested(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(lab.HoldNested, m.Path)
	s.Must(err)
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "unable to unmount file system", "busy", "in use by mount "+filepath.Join(m.Path, "nested")+" below it")
	s.logged("mount is in use", "one")
	s.mounted(m)
	if _, ok, _ := s.MountAt(h.Path); !ok {
		s.Errorf("the mount below was unmounted")
	}
	s.Must(h.Release())
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.unmounted(m)
	s.ends()
}

// busyRaw: a bound device node is held by who has it open through the mount.
func busyRaw(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	f, err := os.Open(m.Path)
	s.Must(err)
	defer f.Close()
	s.Want("one", "unmounted")
	s.failed("one", "Major", "unable to unmount file system", "busy", fmt.Sprintf("in use by pid %d (", os.Getpid()), "fd "+m.Path)
	s.mounted(m)
	s.Must(f.Close())
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// busyNamespace: a process in another mount namespace does not hinder the
// unmount and keeps the device; the deactivation fails until it goes, and names it. The
// lab itself has the device open, too.
func busyNamespace(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	h, err := s.Busy(lab.HoldNamespace, m.Path)
	s.Must(err)
	defer func() { s.Must(h.Release()) }()
	s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
	s.failed("one", "Major", "mount/unmount failed: unable to deactivate block device: command: lvchange", "in use",
		"in use by pid ", fmt.Sprintf("pid %d (standin, uid 0", h.PID), "mount namespace ", "): cwd ")
	f := s.line(fmt.Sprintf("that names process %d", h.PID), func(f map[string]any) bool {
		return f["msg"] == "device is in use" && f["holder_pid"] == float64(h.PID)
	})
	if f["holder_kind"] != "cwd" || f["holder_namespace"] == "" {
		s.Errorf("the log says otherwise how process %d uses the device: %v", h.PID, f)
	}
	f = s.logged("state of the devices after a failed deactivation", "one")
	if text := fmt.Sprint(f["dlm"]); !strings.Contains(text, "dlm lockspaces") {
		s.Errorf("no diagnosis of locks: %v", f)
	}
	s.unmounted(m)
	s.Must(h.Release())
	s.Must(s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"))
	s.ends()
}
