package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

func TestMakeDirectory(t *testing.T) {
	old := unix.Umask(0o077) // a strict umask has no effect
	defer unix.Umask(old)
	top := t.TempDir()
	n := &Node{}
	path := filepath.Join(top, "a", "b", "c")
	created, err := n.MakeDirectory(path)
	want := []string{top + "/a", top + "/a/b", top + "/a/b/c"}
	if err != nil || !slices.Equal(created, want) {
		t.Fatalf("got %q, %v", created, err)
	}
	for _, d := range created {
		if st, err := os.Stat(d); err != nil || st.Mode() != fs.ModeDir|0o755 {
			t.Errorf("%s: %v, %v", d, st.Mode(), err)
		}
	}
	if created, err := n.MakeDirectory(path); err != nil || created != nil {
		t.Errorf("again: %q, %v", created, err)
	}
}

func TestMakeFile(t *testing.T) {
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	top := t.TempDir()
	n := &Node{}
	path := filepath.Join(top, "a", "f")
	created, err := n.MakeFile(path)
	if err != nil || !slices.Equal(created, []string{top + "/a", path}) {
		t.Fatalf("got %q, %v", created, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o644 || st.Size() != 0 {
		t.Errorf("%v, %v", st, err)
	}
	if created, err := n.MakeFile(path); err != nil || created != nil {
		t.Errorf("again: %q, %v", created, err)
	}
}

// An existing entry of another kind is not changed, and the error names it.
func TestExistingTargets(t *testing.T) {
	top := t.TempDir()
	n := &Node{}
	at := func(name string) string { return filepath.Join(top, name) }
	must(t, os.WriteFile(at("full"), []byte("precious"), 0o644))
	must(t, os.Mkdir(at("dir"), 0o755))
	must(t, os.WriteFile(at("dir/x"), nil, 0o644))
	must(t, os.Symlink("dir", at("link")))
	must(t, os.Symlink("nowhere", at("dangling")))
	must(t, unix.Mkfifo(at("fifo"), 0o644))
	for _, tt := range []struct {
		name, path, text string
		make             func(string) ([]string, error)
		is               error
	}{
		{"file with content", "full", "contains 8 bytes", n.MakeFile, fs.ErrExist},
		{"directory for file", "dir", "is a directory", n.MakeFile, fs.ErrExist},
		{"fifo for file", "fifo", "is a named pipe", n.MakeFile, fs.ErrExist},
		{"symlink for file", "link", "is a symlink", n.MakeFile, safepath.ErrSymlink},
		{"dangling symlink for file", "dangling", "is a symlink", n.MakeFile, safepath.ErrSymlink},
		{"file for directory", "full", "it is a regular file", n.MakeDirectory, unix.ENOTDIR},
		{"symlink for directory", "link", top + "/link: is a symlink", n.MakeDirectory, safepath.ErrSymlink},
		{"below a symlink", "link/x/y", top + "/link: is a symlink", n.MakeDirectory, safepath.ErrSymlink},
		{"below a symlink, file", "link/x/y", top + "/link: is a symlink", n.MakeFile, safepath.ErrSymlink},
		{"below a dangling symlink", "dangling/x", top + "/dangling: is a symlink", n.MakeDirectory, safepath.ErrSymlink},
		{"below a file", "full/x", "it is a regular file", n.MakeDirectory, unix.ENOTDIR},
		{"long name", strings.Repeat("n", 256), "name too long", n.MakeDirectory, unix.ENAMETOOLONG},
	} {
		created, err := tt.make(at(tt.path))
		if !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) || created != nil {
			t.Errorf("%s: %q, %v", tt.name, created, err)
		}
	}
	if b, _ := os.ReadFile(at("full")); string(b) != "precious" {
		t.Errorf("content is now %q", b)
	}
	if e, _ := os.ReadDir(at("dir")); len(e) != 1 {
		t.Errorf("dir: %v", e)
	}
}

func TestBadPaths(t *testing.T) {
	n := &Node{}
	for _, path := range []string{
		"", "/", ".", "x", "x/y", "/x/", "/x//y", "/x/../y", "/x/.", "/..", "/x\ny", "/x\x00y", "/x\x7f", "/" + strings.Repeat("x/", 2100) + "x",
	} {
		for name, f := range map[string]func() error{
			"MakeDirectory": func() error { _, err := n.MakeDirectory(path); return err },
			"MakeFile":      func() error { _, err := n.MakeFile(path); return err },
			"RemoveTarget":  func() error { _, err := n.RemoveTarget(path, nil); return err },
			"ChownMount":    func() error { return n.ChownMount(mountOf(path), 0, 0) },
		} {
			if err := f(); !errors.Is(err, safepath.ErrBadPath) || len(err.Error()) > 400 {
				t.Errorf("%s(%.40q): %v", name, path, err)
			}
		}
	}
}

// asRoot skips the test if this process cannot change the owner of files.
func asRoot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can change the owner of files")
	}
}

// In /tmp a user can create an entry with the name of our target and remove it again.
func TestUserEntryInSharedDirectory(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	must(t, os.Chmod(top, 0o777|fs.ModeSticky))
	must(t, os.Mkdir(top+"/d", 0o755))
	must(t, os.WriteFile(top+"/f", nil, 0o644))
	n := &Node{}
	if _, err := n.MakeDirectory(top + "/d"); err != nil {
		t.Error("root's own:", err)
	}
	must(t, os.Chown(top+"/d", 1234, 0))
	must(t, os.Chown(top+"/f", 1234, 0))
	for name, make := range map[string]func(string) ([]string, error){"/d": n.MakeDirectory, "/d/x": n.MakeDirectory, "/f": n.MakeFile} {
		if _, err := make(top + name); !errors.Is(err, safepath.ErrUnsafe) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// If a user repeatedly replaces a directory with a symlink, nothing behind the symlink is
// created, removed or given another owner.
func TestReplacedBySymlink(t *testing.T) {
	top := t.TempDir()
	victim := filepath.Join(top, "victim")
	must(t, os.Mkdir(victim, 0o755))
	must(t, os.Mkdir(top+"/a", 0o755))
	must(t, os.Symlink("victim", top+"/link"))
	n := &Node{}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, top+"/a", unix.AT_FDCWD, top+"/link", unix.RENAME_EXCHANGE)
			}
		}
	})
	seen := 0
	for range 3000 {
		created, err := n.MakeDirectory(top + "/a/b/c")
		if errors.Is(err, safepath.ErrSymlink) {
			seen++
		}
		n.ChownMount(mountOf(top+"/a/b"), 0, 0)
		n.RemoveTarget(top+"/a/b/c", created)
		if !missing(victim + "/b") {
			t.Fatal("something was created behind the symlink")
		}
	}
	close(stop)
	wg.Wait()
	if seen == 0 {
		t.Log("no operation met the symlink") // this depends on the scheduler and is not a failure
	}
}

func TestRemoveTarget(t *testing.T) {
	n := &Node{}
	type state struct {
		name    string
		file    bool
		prepare func(top string)
		left    []string
		is      error
	}
	for _, tt := range []state{
		{name: "all of it"},
		{name: "all of it, file", file: true},
		{name: "already removed", prepare: func(top string) { must(t, os.RemoveAll(top+"/a")) }},
		{name: "target removed", prepare: func(top string) { must(t, os.Remove(top+"/a/b/t")) }},
		{name: "parent in use", prepare: func(top string) { must(t, os.Mkdir(top+"/a/other", 0o755)) }, left: []string{"/a"}},
		{name: "not empty", prepare: func(top string) { must(t, os.Mkdir(top+"/a/b/t/x", 0o755)) }, left: []string{"/a/b/t", "/a/b", "/a"}, is: unix.ENOTEMPTY},
		{name: "file with content", file: true, prepare: func(top string) { must(t, os.WriteFile(top+"/a/b/t", []byte("x"), 0)) }, left: []string{"/a/b/t", "/a/b", "/a"}, is: fs.ErrExist},
		{
			name: "replaced by a symlink",
			prepare: func(top string) {
				must(t, os.Remove(top+"/a/b/t"))
				must(t, os.Mkdir(top+"/elsewhere", 0o755))
				must(t, os.Symlink("../../elsewhere", top+"/a/b/t"))
			},
			left: []string{"/a/b/t", "/a/b", "/a"}, is: safepath.ErrSymlink,
		},
		{
			name: "parent replaced by a symlink",
			prepare: func(top string) {
				must(t, os.Rename(top+"/a", top+"/elsewhere"))
				must(t, os.Symlink("elsewhere", top+"/a"))
			},
			left: []string{"/a/b/t", "/a/b", "/a"}, is: safepath.ErrSymlink,
		},
	} {
		top := t.TempDir()
		make := n.MakeDirectory
		if tt.file {
			make = n.MakeFile
		}
		created, err := make(top + "/a/b/t")
		must(t, err)
		if tt.prepare != nil {
			tt.prepare(top)
		}
		left, err := n.RemoveTarget(top+"/a/b/t", created)
		// The error shows whether the target is left, or only directories in use.
		if slices.Contains(left, top+"/a/b/t") != (err != nil) {
			t.Errorf("%s: left %q with error %v", tt.name, left, err)
		}
		for i := range left {
			left[i] = strings.TrimPrefix(left[i], top)
		}
		if !slices.Equal(left, tt.left) || !errors.Is(err, tt.is) {
			t.Errorf("%s: left %q, %v", tt.name, left, err)
		}
		if tt.left == nil && !missing(top+"/a") {
			t.Errorf("%s: parents are left", tt.name)
		}
		if !missing(top+"/elsewhere") && tt.is == nil {
			t.Errorf("%s: followed the symlink", tt.name)
		}
	}
}

// Only entries of created are removed, and only the target and directories above it.
func TestRemoveTargetKeepsOtherEntries(t *testing.T) {
	top := t.TempDir()
	n := &Node{}
	must(t, os.MkdirAll(top+"/a/b/t", 0o755))
	must(t, os.Mkdir(top+"/z", 0o755))
	if left, err := n.RemoveTarget(top+"/a/b/t", []string{top + "/z"}); !errors.Is(err, safepath.ErrBadPath) || left != nil || missing(top+"/z") || missing(top+"/a/b/t") {
		t.Errorf("foreign directory: %q, %v", left, err)
	}
	if left, err := n.RemoveTarget(top+"/a/b/t", nil); err != nil || left != nil || missing(top+"/a/b/t") {
		t.Errorf("a target that existed before: %q, %v", left, err)
	}
	if left, err := n.RemoveTarget(top+"/a/b/t", []string{top + "/a/b"}); err != nil || !slices.Equal(left, []string{top + "/a/b"}) || missing(top+"/a/b/t") {
		t.Errorf("a target that existed before, in a created directory: %q, %v", left, err)
	}
	must(t, os.WriteFile(top+"/a/f", nil, 0o644))
	if left, err := n.RemoveTarget(top+"/a/f", nil); err != nil || left != nil || missing(top+"/a/f") {
		t.Errorf("a file that existed before: %q, %v", left, err)
	}
	if left, err := n.RemoveTarget(top+"/a/b/t", []string{top + "/a/b/t"}); err != nil || left != nil || !missing(top+"/a/b/t") || missing(top+"/a/b") {
		t.Errorf("parents that existed before: %q, %v", left, err)
	}
}

// mountOf returns the mount that contains path, as if it were mounted at path.
func mountOf(path string) Mount {
	m := Mount{Mountpoint: path}
	if fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
		m.ID, _ = mountID(fd)
		unix.Close(fd)
	}
	return m
}

func TestChownMount(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	n := &Node{}
	must(t, os.Mkdir(top+"/d", 0o755))
	must(t, os.Symlink("d", top+"/link"))
	owner := func(p string) [2]uint32 {
		var st unix.Stat_t
		must(t, unix.Lstat(p, &st))
		return [2]uint32{st.Uid, st.Gid}
	}
	if err := n.ChownMount(mountOf(top+"/d"), 1234, 4294967294); err != nil || owner(top+"/d") != [2]uint32{1234, 4294967294} {
		t.Errorf("%v, %v", owner(top+"/d"), err)
	}
	for _, p := range []string{"/link", "/link/x"} {
		if err := n.ChownMount(mountOf(top+p), 5, 5); !errors.Is(err, safepath.ErrSymlink) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if owner(top+"/link") != [2]uint32{0, 0} || owner(top + "/d")[0] != 1234 {
		t.Error("the owner of a symlink or of its target was changed")
	}
	if err := n.ChownMount(mountOf(top+"/none"), 5, 5); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	// The change time is unchanged if there is nothing to change.
	var before, after unix.Stat_t
	must(t, unix.Lstat(top+"/d", &before))
	must(t, n.ChownMount(mountOf(top+"/d"), 1234, 4294967294))
	must(t, unix.Lstat(top+"/d", &after))
	if before.Ctim != after.Ctim {
		t.Error("the unchanged owner was written")
	}
}

func TestParseMountID(t *testing.T) {
	if id, err := parseMountID("pos:\t0\nflags:\t012000000\nmnt_id:\t42\nino:\t2\n"); err != nil || id != 42 {
		t.Error(id, err)
	}
	if _, err := parseMountID("pos:\t0\n"); err == nil {
		t.Error("no error")
	}
}

// A user may replace a directory of the resolved path with a symlink. The resolved path is
// walked again without following symlinks, so nothing is created behind it.
func TestResolvedTargetIsReplaced(t *testing.T) {
	asRoot(t)
	top := t.TempDir()
	must(t, os.MkdirAll(top+"/var/mnt", 0o755))
	must(t, os.Symlink("var/mnt", top+"/mnt"))
	n := &Node{}
	real, err := n.ResolveTarget(top + "/mnt/x")
	must(t, err)
	must(t, os.Mkdir(top+"/victim", 0o755))
	must(t, os.Rename(top+"/var/mnt", top+"/var/old"))
	must(t, os.Symlink("../victim", top+"/var/mnt"))
	if _, err := n.MakeDirectory(real); !errors.Is(err, safepath.ErrSymlink) || !missing(top+"/victim/x") {
		t.Errorf("created behind a symlink: %v", err)
	}
}

// A mount point is not touched, because its server may be dead. Here the mount is a file
// system that never responds, a FUSE mount without a daemon.
func TestResolveTargetOnADeadMount(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	top := tmpfsDir(t)
	must(t, os.Chmod(top, 0o755))
	must(t, os.MkdirAll(top+"/var/mnt/dead", 0o755))
	must(t, os.Symlink("var/mnt", top+"/mnt"))
	fuse, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no FUSE here: ", err)
	}
	dead := filepath.Join(top, "var/mnt/dead")
	must(t, unix.Mount("dead", dead, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fuse.Fd())))
	defer fuse.Close()
	defer unix.Unmount(dead, unix.MNT_DETACH)
	done := make(chan string, 1)
	go func() {
		got, err := (&Node{}).ResolveTarget(top + "/mnt/dead")
		done <- fmt.Sprintf("%s %v", got, err)
	}()
	select {
	case got := <-done:
		if got != dead+" <nil>" {
			t.Error(got)
		}
	case <-time.After(busy):
		t.Error("waits for the server of the mount")
	}
}

func TestMissingTargets(t *testing.T) {
	base := t.TempDir()
	there := filepath.Join(base, "there")
	if err := os.Mkdir(there, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(base, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(there, filepath.Join(base, "link")); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path string
		want []string
	}{
		{"there", nil},
		{"there/a", []string{"there/a"}},
		{"there/a/b/c", []string{"there/a", "there/a/b", "there/a/b/c"}},
		{"file", nil},
		{"file/a", nil},
		{"link/a", nil}, // refused later, so nothing is created
	} {
		var want []string
		for _, w := range tt.want {
			want = append(want, filepath.Join(base, w))
		}
		if got := new(Node).MissingTargets(filepath.Join(base, tt.path)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tt.path, got, want)
		}
	}
	for _, bad := range []string{"", "/", "relative", base + "//a", base + "/../a"} {
		if got := new(Node).MissingTargets(bad); got != nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
}

// MissingTargets lists exactly what MakeDirectory creates and RemoveTarget removes.
func TestMissingTargetsAreCreated(t *testing.T) {
	n := &Node{}
	path := filepath.Join(t.TempDir(), "a/b/fs")
	announced := n.MissingTargets(path)
	made, err := n.MakeFile(path)
	if err != nil || len(made) != 3 || !slices.Equal(announced, made) {
		t.Fatalf("announced %q, created %q, %v", announced, made, err)
	}
	if left, err := n.RemoveTarget(path, announced); err != nil || len(left) > 0 {
		t.Fatalf("%q %v", left, err)
	}
}
