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
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// Records that cannot be read or written. Each was written by the daemon and then damaged.
var recordBehaviours = []behaviour{
	{"truncated record", nil, unreadable("remove", truncated)},
	{"record of garbage", xfsOrLustre, unreadable("remove", garbage)},
	{"directory in place of a record", xfsOrLustre, unreadable("remove", directory)},
	{"record of a newer version", xfsOrLustre, unreadable("newer", newerVersion)},
	{"runtime directory full", nil, unwritable("no space left on device", fill)},
	{"runtime directory read-only", nil, unwritable("read-only file system", readOnly)},
}

// A damage damages a record and returns the administrator's repair.
type damage func(s *env, file string) (repair func())

// truncated removes the second half of the record; the administrator checks the mounts and
// removes the file.
func truncated(s *env, file string) func() {
	st, err := os.Stat(file)
	s.Must(err)
	s.Must(os.Truncate(file, st.Size()/2))
	return func() { s.Must(os.Remove(file)) }
}

// instead changes the content of a record. The administrator restores it.
func (s *env) instead(file string, change func([]byte) []byte) (repair func()) {
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

// newerVersion changes the record to that of a newer daemon.
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

// look describes the file at a path, for comparison.
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

// unreadable: nothing is done for an object whose record cannot be read, because something
// may be mounted. The error is reported until the record is repaired or removed.
func unreadable(advice string, spoil damage) func(*env) {
	return func(s *env) {
		m := s.ready()
		s.MountAndWait("one", m)
		s.stops()
		file := s.records()[0]
		repair := spoil(s, file)
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
			s.Errorf("%q has no hint with %q", o.DebugMessage(), advice)
		}
		s.sick(mountstate.CauseRecord, mountstate.ActionDrain, "record cannot be used: "+file)
		s.late("one", mountstate.Unmounted)
		untouched()

		// After its deletion, the object stays until the record can be read.
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

		repair()
		if err := s.Cluster.WaitGone(s.Context(patience), "ClientMount", s.Node, "one"); err != nil {
			s.Fatalf("the record is repaired and the object still exists: %v; the status is %v", err, s.get("one")["status"])
		}
		s.notMounted(m)
		s.Must(os.RemoveAll(s.Base)) // without the record nothing shows who created it
		s.ends()
	}
}

// A fault prevents writes of records until the returned function is called.
type fault func(s *env) (end func())

// fill uses all space. Second links to the records ensure that removing them frees no
// space.
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
	wait.Until(s.t, "no file is open for writing", func() bool { // the daemon may be saving a record
		err := unix.Mount("", s.Runtime, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		if err != unix.EBUSY {
			s.Must(err)
		}
		return err == nil
	})
	return func() { s.Helper(); s.Must(unix.Mount("", s.Runtime, "", unix.MS_REMOUNT, "")) }
}

// unwritable: without a writable record nothing is mounted, but unmounting works.
func unwritable(text string, make fault) func(*env) {
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

		// A daemon that starts in this state does not need to write, because ready mounts
		// have not changed. Deleted objects do not block it.
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
		if text == "no space left on device" { // records on a read-only file system cannot be removed
			s.noRecords()
		}
		s.Must(unix.Unmount(s.Runtime, 0))
		s.NothingLeft()
		s.noRecords()
	}
}
