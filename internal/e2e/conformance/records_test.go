package conformance

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Records that cannot be read or written. Each is one that the daemon wrote
// itself.
var recordBehaviours = []behaviour{
	{"truncated record", nil, unreadable("remove", truncated)},
	{"record of garbage", xfsOrLustre, unreadable("remove", garbage)},
	{"directory in place of a record", xfsOrLustre, unreadable("remove", directory)},
	{"record of a newer version", xfsOrLustre, unreadable("newer", newerVersion)},
	{"runtime directory full", nil, unwritable("no space left on device", fill)},
	{"runtime directory read-only", nil, unwritable("read-only file system", readOnly)},
}

// A damage spoils a record and returns what the administrator does about it.
type damage func(s *env, file string) (mend func())

// truncated loses its second half; the administrator looks at the mounts and
// removes it.
func truncated(s *env, file string) func() {
	st, err := os.Stat(file)
	s.Must(err)
	s.Must(os.Truncate(file, st.Size()/2))
	return func() { s.Must(os.Remove(file)) }
}

// instead puts other bytes into a record. The administrator puts back what was
// there.
func (s *env) instead(file string, change func([]byte) []byte) (mend func()) {
	s.Helper()
	good, err := os.ReadFile(file)
	s.Must(err)
	spoiled := change(good)
	if bytes.Equal(good, spoiled) {
		s.Fatalf("%s is unchanged: %s", file, good)
	}
	s.Must(os.WriteFile(file, spoiled, 0o600))
	return func() { s.Helper(); s.Must(os.WriteFile(file, good, 0o600)) }
}

func garbage(s *env, file string) func() {
	return s.instead(file, func(good []byte) []byte { return bytes.Repeat([]byte{0}, len(good)) })
}

var versionField = regexp.MustCompile(`"version":\s*\d+`)

// newerVersion is the record of a daemon that comes after this one.
func newerVersion(s *env, file string) func() {
	return s.instead(file, func(good []byte) []byte {
		return bytes.Replace(good, versionField.Find(good), []byte(`"version":999`), 1)
	})
}

func directory(s *env, file string) func() {
	aside := s.Runtime + "-aside"
	s.Must(os.Rename(file, aside))
	s.Must(os.Mkdir(file, 0o700))
	return func() {
		s.Helper()
		s.Must(os.Remove(file))
		s.Must(os.Rename(aside, file))
	}
}

// look is what there is at a path, to be compared.
func (s *env) look(path string) string {
	s.Helper()
	st, err := os.Lstat(path)
	s.Must(err)
	if st.IsDir() {
		list, err := os.ReadDir(path)
		s.Must(err)
		return st.Mode().String() + " " + strings.Repeat("entry ", len(list))
	}
	data, err := os.ReadFile(path)
	s.Must(err)
	return st.Mode().String() + " " + string(data)
}

// unreadable: nothing is done for an object whose record says something that the
// daemon cannot read, because something may be mounted. It is reported until the
// record is mended or removed.
func unreadable(advice string, spoil damage) func(*env) {
	return func(s *env) {
		m := s.ready()
		s.MountAndWait("one", m)
		s.stops()
		file := s.records()[0]
		mend := spoil(s, file)
		before := s.look(file)
		s.Must(s.ClearLog())
		untouched := func() {
			s.Helper()
			s.mounted(m)
			s.never("mount", "umount", "lvchange", "vgchange")
			if now := s.look(file); now != before {
				s.Errorf("the record was %q and is %q", before, now)
			}
		}

		s.run()
		o := s.AwaitStatus("one", func(o lab.Object) bool { return strings.Contains(o.DebugMessage(), file) })
		if !strings.Contains(o.DebugMessage(), advice) {
			s.Errorf("%q does not tell what to do about it: %q expected", o.DebugMessage(), advice)
		}
		untouched()

		// Deleted, the object stays until the record can be read.
		s.Must(s.Cluster.Delete(s.Context(patience), "ClientMount", s.Node, "one"))
		s.stops()
		s.run()
		s.line("about the record", func(f map[string]any) bool {
			text, _ := f["error"].(string)
			return f["clientmount"] == "one" && strings.Contains(text, file)
		})
		if now := stateWords(s.get("one")); !strings.HasPrefix(now, "held deleted") {
			s.Errorf("the object is %s", now)
		}
		untouched()

		mend()
		if err := s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"); err != nil {
			s.Fatalf("the record is mended and the object not gone: %v; the status is %v", err, s.get("one")["status"])
		}
		s.notMounted(m)
		s.Must(os.RemoveAll(s.Base)) // without the record nothing tells who made it
		s.ends()
	}
}

// A trouble makes a file system take no records and returns its end.
type trouble func(s *env) (end func())

// fill uses all space. Records that the daemon removes make none: a second link
// keeps what was in them.
func fill(s *env) func() {
	s.Helper()
	dir := filepath.Join(s.Runtime, "full")
	s.Must(os.Mkdir(dir, 0o700))
	for _, file := range s.records() {
		s.Must(os.Link(file, filepath.Join(dir, filepath.Base(file))))
	}
	f, err := os.Create(filepath.Join(dir, "rest"))
	s.Must(err)
	defer f.Close()
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		s.Fatal(err)
	}
	return func() { s.Helper(); s.Must(os.RemoveAll(dir)) }
}

func readOnly(s *env) func() {
	s.Helper()
	s.Must(unix.Mount("", s.Runtime, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	return func() { s.Helper(); s.Must(unix.Mount("", s.Runtime, "", unix.MS_REMOUNT, "")) }
}

// unwritable: undoing does not depend on a record that can be written, and
// nothing is started without one.
func unwritable(text string, make trouble) func(*env) {
	return func(s *env) {
		s.UseProfile(s.hookProfile())
		m := s.storage(3, lab.VolumeOptions{})
		s.Must(os.MkdirAll(s.Runtime, 0o755))
		s.Must(unix.Mount("records", s.Runtime, "tmpfs", 0, "size=64k,mode=0755"))
		s.Cleanup(func() { _ = unix.Unmount(s.Runtime, unix.MNT_DETACH) })
		s.run()
		_, unmount := s.withHooks(m)

		s.MountAndWait("one", m)
		end := make(s)
		s.Must(s.ClearLog())
		s.Unmount("one")
		s.unmounted(m)
		s.called(unmount...)
		s.Delete("one")
		s.called()

		s.Mount("two", m)
		s.failed("two", "Major", "mount/unmount failed: ", "record", text)
		s.called()
		s.unmounted(m)
		end()
		s.Await("two", "mounted")
		s.mounted(m)

		// Nor does a daemon that starts in trouble need to write. What is ready has
		// not changed, and what is gone does not hold it.
		end = make(s)
		s.again("two")
		if o := s.get("two"); !o.Ready("mounted") || o.Severity() != "" {
			s.Errorf("after a restart: status %v", o["status"])
		}
		s.Must(s.ClearLog())
		s.Delete("two")
		s.unmounted(m)
		s.called(unmount...)
		end()

		s.stops()
		if text == "no space left on device" { // a file system that is read-only keeps its records
			s.noRecords()
		}
		s.Must(unix.Unmount(s.Runtime, 0))
		s.NothingLeft()
		s.noRecords()
	}
}
