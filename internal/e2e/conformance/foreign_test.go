package conformance

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

var foreignBehaviours = []behaviour{
	{"foreign mount at the path", nil, foreignMount},
	{"foreign mount of the same type", lvmOnly, foreignDevice},
	{"foreign mount on top of ours", nil, foreignOnTop},
	{"foreign mount over the parent of ours", nil, foreignAbove},
	{"foreign mount in place of ours", nil, foreignInstead},
	{"mounted manually before", nil, mountedManually},
	{"mount points with blanks elsewhere", nil, blanksElsewhere},
	{"volume active before", lvmOnly, activeBefore},
}

// foreign mounts something that is not ours at a path, with our source as its name, so
// that a comparison of sources cannot distinguish them.
func (s *env) foreign(m fixture.MountSpec) (remove func()) {
	s.Helper()
	if s.k.file {
		file := s.Runtime + "-foreign"
		s.Must(os.WriteFile(file, []byte("theirs"), 0o644))
		s.Must(unix.Mount(file, m.Path, "", unix.MS_BIND, ""))
		return func() { s.Helper(); s.Must(unix.Unmount(m.Path, unix.UMOUNT_NOFOLLOW)) }
	}
	source := s.source(m.Index)
	if s.k.typ == "lustre" {
		source = "10.9.9.9@tcp:/other"
	}
	s.Must(unix.Mount(source, m.Path, "tmpfs", 0, "size=1m,mode=0755,uid=77"))
	s.Must(os.WriteFile(filepath.Join(m.Path, "theirs"), nil, 0o644))
	return func() { s.Helper(); s.Must(unix.Unmount(m.Path, unix.UMOUNT_NOFOLLOW)) }
}

// foreignUnchanged checks that the foreign mount has not changed.
func (s *env) foreignUnchanged(m fixture.MountSpec) {
	s.Helper()
	if s.k.file {
		if data, err := os.ReadFile(m.Path); string(data) != "theirs" || err != nil {
			s.Errorf("the foreign mount is gone or changed: %q %v", data, err)
		}
	} else if _, err := os.Stat(filepath.Join(m.Path, "theirs")); err != nil {
		s.Errorf("the foreign mount is gone: %v", err)
	}
	st, err := os.Stat(m.Path)
	s.Must(err)
	if uid := st.Sys().(*syscall.Stat_t).Uid; int(uid) == m.UID && m.Own {
		s.Errorf("the owner of the foreign mount was changed to %d", uid)
	}
}

// target creates the target, as an administrator would.
func (s *env) target(m fixture.MountSpec) {
	s.Helper()
	s.Must(os.MkdirAll(s.Base, 0o755))
	if s.k.file {
		s.Must(os.WriteFile(m.Path, nil, 0o644))
	} else {
		s.Must(os.MkdirAll(m.Path, 0o755))
	}
}

// runManually runs commands as an administrator would, and clears the log. It skips queries.
func (s *env) runManually(lines []string) {
	s.Helper()
	for _, line := range lines {
		if f := strings.Fields(line); len(f) > 1 {
			s.Must(s.Tool(f[0], f[1:]...))
		}
	}
	s.Must(s.ClearLog())
}

// untouched fails the test if mount or umount was called.
func (s *env) untouched() {
	s.Helper()
	for _, c := range s.commands() {
		if strings.HasPrefix(c, "umount") || strings.HasPrefix(c, "mount") {
			s.Errorf("called: %s", c)
		}
	}
	s.Must(s.ClearLog())
}

func foreignMount(s *env) {
	m := s.ready()
	s.target(m)
	remove := s.foreign(m)
	s.Mount("one", m)
	s.failed("one", "Major", "mount/unmount failed: unable to mount file system: unexpected mount at path "+m.Path, "left mounted")
	s.foreignUnchanged(m)
	s.untouched()
	s.goneSoon("one") // nothing is mounted for it
	s.foreignUnchanged(m)
	s.untouched()
	remove()
	s.Must(os.Remove(m.Path)) // was created manually
	s.Must(os.Remove(s.Base))
	s.ends()
}

// foreignDevice: another program has mounted another volume of the same type.
func foreignDevice(s *env) {
	m := s.ready()
	other := s.storage(9, lab.VolumeOptions{})
	s.target(m)
	there := other
	there.Path = m.Path
	s.runManually(s.words(s.k.mount, there))
	s.Mount("one", m)
	s.failed("one", "Major", "unexpected mount at path "+m.Path, "Device "+s.seen(other))
	s.untouched()
	s.runManually([]string{"umount " + m.Path, "lvchange --activate n " + s.volumes[9].VG + "/" + s.volumes[9].LV})
	s.Await("one", "mounted") // when the path is free
	s.mounted(m)
	s.Delete("one")
	s.Must(os.Remove(m.Path)) // was created manually
	s.Must(os.Remove(s.Base))
	s.ends()
}

// seen returns the source in the mount table.
func (s *env) seen(m fixture.MountSpec) string {
	if s.k.file {
		return "" // depends on the file system of /dev
	}
	return s.source(m.Index)
}

// foreignOnTop: another program has mounted over our mount. Its mount is not touched, and
// ours is unmounted when the other one is gone.
func foreignOnTop(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	remove := s.foreign(m)
	s.Must(s.ClearLog())
	s.Want("one", "unmounted")
	hiding, _, err := s.MountAt(m.Path)
	s.Must(err)
	o := s.failed("one", "Major", "unable to unmount file system: ", m.Path, hiding.Source)
	if o.Ready("unmounted") {
		s.Errorf("unmounted while it is hidden: status %v", o["status"])
	}
	s.foreignUnchanged(m)
	s.untouched()
	remove()
	s.mounted(m)
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// foreignAbove: another mount covers the directory of ours, which is mounted but not
// visible at its path.
func foreignAbove(s *env) {
	s.UseProfile(fixture.ProfileSpec{})
	m := s.storage(3, lab.VolumeOptions{})
	m.Path = s.Path("parent/m")
	s.run()
	s.MountAndWait("one", m)
	parent, decoy := filepath.Dir(m.Path), m.Path
	s.Must(unix.Mount("covering-all", parent, "tmpfs", 0, "size=1m,mode=0755"))
	s.Must(os.Mkdir(decoy, 0o755))
	s.Must(s.ClearLog())
	s.Want("one", "unmounted")
	o := s.failed("one", "Major", "unable to unmount file system: ", m.Path, "covering-all")
	if o.Ready("unmounted") {
		s.Errorf("unmounted while it is hidden: status %v", o["status"])
	}
	s.mounted(m)
	s.untouched()
	if _, err := os.Stat(decoy); err != nil {
		s.Errorf("the foreign mount was changed: %v", err)
	}
	s.Must(unix.Unmount(parent, unix.UMOUNT_NOFOLLOW))
	s.Await("one", "unmounted")
	s.unmounted(m)
	s.Delete("one")
	s.ends()
}

// foreignInstead: our mount was unmounted manually, and a foreign one is at its path. The
// record of ours must not match the foreign one: nothing is left to unmount.
func foreignInstead(s *env) {
	m := s.ready()
	s.MountAndWait("one", m)
	s.Must(s.Tool("umount", m.Path))
	remove := s.foreign(m)
	s.Must(s.ClearLog())
	s.Unmount("one")
	s.Delete("one")
	s.foreignUnchanged(m)
	s.untouched()
	remove()
	if _, err := os.Lstat(m.Path); err != nil {
		s.Errorf("the target was in use by another mount: %v", err)
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// mountedManually: the file system is mounted already, and the daemon uses that mount.
func mountedManually(s *env) {
	m := s.ready()
	s.target(m)
	s.runManually(s.words(s.k.mount, m))
	s.MountAndWait("one", m)
	s.mounted(m)
	s.owned(m)
	s.untouched()
	s.Delete("one")
	s.unmounted(m)
	s.Must(os.Remove(s.Base))
	s.ends()
}

// blanksElsewhere: mount points that look like ours if the escapes in the mount table are
// not decoded, or if only the first word is read.
func blanksElsewhere(s *env) {
	m := s.ready()
	s.Must(os.MkdirAll(s.Base, 0o755))
	others := []string{m.Path + " x", m.Path + "\\040x", s.Base + "/new\nline " + m.Path, s.Base + "/tab\t" + filepath.Base(m.Path)}
	for _, dir := range others {
		s.Must(os.MkdirAll(dir, 0o755))
		s.Must(unix.Mount(s.source(m.Index), dir, "tmpfs", 0, "size=1m"))
	}
	s.MountAndWait("one", m)
	s.mounted(m)
	s.called(s.words(s.k.mount, m)...)
	s.Unmount("one")
	s.unmounted(m)
	s.called(s.words(s.k.unmount, m)...)
	s.Delete("one")
	for _, dir := range others {
		s.Must(unix.Unmount(dir, unix.UMOUNT_NOFOLLOW)) // is still mounted
	}
	s.Must(os.RemoveAll(s.Base))
	s.ends()
}

// activeBefore: a volume that is active already is not activated again.
func activeBefore(s *env) {
	m := s.ready()
	s.runManually(s.words(s.k.mount[:len(s.k.mount)-1], m))
	s.MountAndWait("one", m)
	s.mounted(m)
	for _, c := range s.commands() {
		if strings.HasPrefix(c, "lvchange") {
			s.Errorf("called: %s", c)
		}
	}
	s.Delete("one")
	s.ends()
}
