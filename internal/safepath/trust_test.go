package safepath

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// Files and directories that hostile users may own or write to, and the result of each
// check.
func TestHostileUsers(t *testing.T) {
	asRoot(t)
	const user = 4711
	for _, tt := range []struct {
		name     string
		kind     fs.FileMode // 0 (file), fs.ModeDir or fs.ModeSymlink (to a directory of root)
		mode     fs.FileMode
		uid, gid int
		// part of the error of each check; empty: accepted
		private, parent, file, directory string
	}{
		{name: "root's", kind: fs.ModeDir, mode: 0o755, file: "not a regular file"},
		{name: "root's file", mode: 0o644, private: "is not a directory", directory: "not a directory"},
		{name: "executable for the group", mode: 0o755, private: "is not a directory", directory: "not a directory"},
		{name: "of the group root", kind: fs.ModeDir, mode: 0o775, private: "(mode 0775)", parent: "not sticky (mode 0775)", file: "not a regular file", directory: "mode 0775"},
		{name: "of a group", kind: fs.ModeDir, mode: 0o770, gid: user, private: "(mode 0770)", parent: "so they can replace its entries", file: "not a regular file", directory: "mode 0770, gid 4711"},
		{name: "open", kind: fs.ModeDir, mode: 0o777, private: "(mode 0777)", parent: "so they can replace its entries", file: "not a regular file", directory: "mode 0777"},
		{name: "open to other users only", kind: fs.ModeDir, mode: 0o707, private: "(mode 0707)", parent: "so they can replace its entries", file: "not a regular file", directory: "mode 0707"},
		{name: "sticky", kind: fs.ModeDir, mode: 0o777 | fs.ModeSticky, private: "(mode 0777)", file: "not a regular file"},
		{name: "a user's", kind: fs.ModeDir, mode: 0o755, uid: user, private: "uid 4711", file: "not a regular file", directory: "is owned by uid 4711"},
		{name: "a user's file", mode: 0o644, uid: user, private: "is not a directory", file: "another user (uid 4711)", directory: "not a directory"},
		{name: "a file for all", mode: 0o646, private: "is not a directory", parent: "so they can replace its entries", file: "writable by other users (mode 0646)", directory: "not a directory"},
		{name: "a file for a group", mode: 0o664, private: "is not a directory", parent: "so they can replace its entries", file: "writable by other users (mode 0664)", directory: "not a directory"},
		{name: "root's symlink", kind: fs.ModeSymlink, private: "is a symbolic link", file: "not a regular file"},
		{name: "a user's symlink", kind: fs.ModeSymlink, uid: user, private: "is a symbolic link", file: "not a regular file", directory: "is a symlink that is not followed: it is owned by uid 4711"},
	} {
		top := t.TempDir()
		path := top + "/entry"
		must(t, os.Mkdir(top+"/real", 0o755))
		switch tt.kind {
		case fs.ModeDir:
			must(t, os.Mkdir(path, 0o700))
		case fs.ModeSymlink:
			must(t, os.Symlink("real", path))
		default:
			must(t, os.WriteFile(path, nil, 0o600))
		}
		must(t, os.Lchown(path, tt.uid, tt.gid))
		if tt.kind != fs.ModeSymlink {
			must(t, os.Chmod(path, tt.mode))
		}
		info, err := os.Lstat(path)
		must(t, err)
		real, derr := Directory(path)
		for check, c := range map[string]struct {
			err  error
			want string
		}{
			"CheckPrivate": {CheckPrivate(path), tt.private},
			"CheckParent":  {CheckParent(path), tt.parent},
			"CheckFile":    {CheckFile(path, info), tt.file},
			"Directory":    {derr, tt.directory},
		} {
			if (c.err == nil) != (c.want == "") || c.err != nil && !strings.Contains(c.err.Error(), c.want) {
				t.Errorf("%s: %s: %v, want %q", tt.name, check, c.err, c.want)
			}
		}
		if want := map[bool]string{true: top + "/real", false: path}[tt.kind == fs.ModeSymlink]; derr == nil && real != want {
			t.Errorf("%s: leads to %s", tt.name, real)
		}
		if tt.directory != "" && tt.kind == fs.ModeDir { // directories below it are not safe either
			must(t, os.Mkdir(path+"/below", 0o755))
			if _, err := Directory(path + "/below"); err == nil {
				t.Errorf("%s: a directory below is accepted", tt.name)
			}
		}
	}
}

func TestWriters(t *testing.T) {
	for _, tt := range []struct {
		mode        uint32
		gid         uint32
		writers     []Writers
		replaceable bool
	}{
		{0o755, 1, nil, false},
		{0o757, 0, []Writers{Everybody, Groups, ForeignGroups}, true},
		{0o775, 0, []Writers{Groups}, true},
		{0o775, 1, []Writers{Groups, ForeignGroups}, true},
		{0o1777, 1, []Writers{Everybody, Groups, ForeignGroups}, false},
	} {
		e := Entry{Mode: tt.mode, GID: tt.gid}
		var got []Writers
		for _, w := range []Writers{Everybody, Groups, ForeignGroups} {
			if e.WritableBy(w) {
				got = append(got, w)
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(tt.writers) || e.ReplaceableBy(Groups) != tt.replaceable {
			t.Errorf("%04o, gid %d: %v, %v", tt.mode, tt.gid, got, e.ReplaceableBy(Groups))
		}
	}
}

func TestUnsafeParents(t *testing.T) {
	asRoot(t)
	dir := func(mode fs.FileMode, uid, gid int) func(string) {
		return func(p string) {
			must(t, os.Mkdir(p, 0o755))
			must(t, os.Chown(p, uid, gid))
			must(t, os.Chmod(p, mode))
		}
	}
	for _, tt := range []struct {
		name   string
		parent func(string)
		bad    bool
	}{
		{"root's", dir(0o755, 0, 0), false},
		{"of the group root", dir(0o775, 0, 0), false},
		{"sticky", dir(0o777|fs.ModeSticky, 0, 0), false},
		{"readable by another group", dir(0o755, 0, 1234), false},
		{"world-writable", dir(0o777, 0, 0), true},
		{"writable by another group", dir(0o775, 0, 1234), true},
		{"a user's", dir(0o755, 1234, 0), true},
		{"a user's, sticky", dir(0o755|fs.ModeSticky, 1234, 0), true},
	} {
		top := t.TempDir()
		tt.parent(top + "/p")
		parent, created, err := OpenParent(top+"/p/q/r", true)
		if err == nil {
			parent.Close()
		}
		if tt.bad != errors.Is(err, ErrUnsafe) || tt.bad && (!strings.HasPrefix(err.Error(), top+"/p: ") || created != nil) || !tt.bad && err != nil {
			t.Errorf("%s: %q, %v", tt.name, created, err)
		}
	}
}
