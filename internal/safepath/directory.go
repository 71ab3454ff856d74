package safepath

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory of a path. Its descriptor refers to the same directory even if
// the name changes.
type Dir struct {
	fd     int // O_PATH
	path   string
	shared bool // other users can create entries (a sticky directory like /tmp)
}

func openRoot() (*Dir, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	return &Dir{fd: fd, path: "/"}, nil
}

// Close closes the descriptor.
func (d *Dir) Close() { unix.Close(d.fd) }

// FD returns the descriptor, for the *at system calls. It was opened with O_PATH.
func (d *Dir) FD() int { return d.fd }

// Join returns the path of an entry, for messages.
func (d *Dir) Join(name string) string { return filepath.Join(d.path, name) }

// CheckPath returns an error that wraps ErrBadPath unless path is a valid path of a mount
// target.
func CheckPath(path string) error {
	why := ""
	switch {
	case !filepath.IsAbs(path):
		why = "it is not absolute"
	case path == "/":
		why = "it is the root directory"
	case filepath.Clean(path) != path:
		why = "it is not clean (doubled or trailing slash, . or ..)"
	case len(path) >= unix.PathMax:
		why = "it is too long"
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		why = "it contains control characters"
	default:
		return nil
	}
	return fmt.Errorf("%.200q: %w: %s", path, ErrBadPath, why)
}

// OpenParent walks from / to the parent directory of path, one component at a time and
// without following symlinks. A directory in which users other than root could replace
// entries is an error. If make is set, OpenParent creates missing directories; created
// lists them from the top, even if an error is returned.
func OpenParent(path string, make bool) (d *Dir, created []string, err error) {
	if err := CheckPath(path); err != nil {
		return nil, nil, err
	}
	if d, err = openRoot(); err != nil {
		return nil, nil, err
	}
	if err := d.check(ForeignGroups); err != nil {
		d.Close()
		return nil, nil, err
	}
	for _, name := range strings.Split(filepath.Dir(path)[1:], "/") {
		if name == "" { // the parent is /
			continue
		}
		next, made, err := d.Enter(name, make)
		if made {
			created = append(created, d.Join(name))
		}
		if err == nil {
			if err = next.check(ForeignGroups); err != nil {
				next.Close()
			}
		}
		d.Close()
		if err != nil {
			return nil, created, err
		}
		d = next
	}
	return d, created, nil
}

// Enter opens the directory name in d. If it is missing and make is set, Enter creates it
// with mode 0755.
func (d *Dir) Enter(name string, make bool) (next *Dir, made bool, err error) {
	path := d.Join(name)
	for range 5 { // another process may create or remove it at the same time
		fd, err := unix.Openat(d.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			next = &Dir{fd: fd, path: path}
			if made {
				err = openMode(d, name, fd)
			}
			if err != nil {
				next.Close()
				return nil, made, &fs.PathError{Op: "chmod", Path: path, Err: err}
			}
			return next, made, nil
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil, made, notDirectory(d, name)
		}
		if err != unix.ENOENT || !make {
			return nil, made, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		switch err := unix.Mkdirat(d.fd, name, 0o755); err {
		case nil:
			made = true
		case unix.EEXIST:
		default:
			return nil, made, &fs.PathError{Op: "mkdir", Path: path, Err: err}
		}
	}
	return nil, made, &fs.PathError{Op: "mkdir", Path: path, Err: unix.EAGAIN}
}

// OpenDirectory opens an existing directory, even if other users can change it or its path.
// It follows the symlinks that Target follows, and no others. A user who can change the path
// can therefore lead it only to directories in which this user can create files anyway.
func OpenDirectory(path string) (*Dir, error) {
	real, err := Target(path, Hooks{})
	if err != nil {
		return nil, err
	}
	d, err := openRoot()
	for _, name := range strings.Split(real[1:], "/") {
		if err != nil {
			return nil, err
		}
		parent := d
		d, _, err = parent.Enter(name, false)
		parent.Close()
	}
	return d, err
}

// ReplaceFile replaces the file name in the directory with the descriptor dir, to which other
// users may be able to write: it writes data to the new file tmp, which it creates with O_EXCL
// and then renames, so it follows no link of another user, and readers see either the old or
// the new file. The file has mode 0644 and the owner uid and gid; -1 means unchanged.
func ReplaceFile(dir int, name, tmp string, data []byte, uid, gid int) error {
	return replaceFile(dir, name, tmp, data, func(f *os.File) error {
		if uid >= 0 || gid >= 0 {
			if err := f.Chown(uid, gid); err != nil {
				return err
			}
		}
		return f.Chmod(0o644)
	})
}

// ReplaceSecret is ReplaceFile for a file with mode 0600 that survives a power failure: when it
// returns nil, data and name are on the disk. dir must be open for reading.
func ReplaceSecret(dir int, name, tmp string, data []byte) error {
	err := replaceFile(dir, name, tmp, data, (*os.File).Sync)
	if err != nil {
		return err
	}
	if err := unix.Fsync(dir); err != nil {
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// replaceFile calls finish when the data is written, before the file gets its name.
func replaceFile(dir int, name, tmp string, data []byte, finish func(*os.File) error) error {
	// An existing file is a leftover of a crash or was created by another user; remove it.
	_ = unix.Unlinkat(dir, tmp, 0)
	fd, err := unix.Openat(dir, tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("cannot create %s: %w", tmp, err)
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(data)
	if err == nil {
		err = finish(f)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = unix.Renameat(dir, tmp, dir, name)
	}
	if err != nil {
		_ = unix.Unlinkat(dir, tmp, 0)
		return fmt.Errorf("cannot write %s: %w", name, err)
	}
	return nil
}

// openMode sets the mode of a new directory to 0755, even with a strict umask.
func openMode(d *Dir, name string, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o777 == 0o755 {
		return err
	}
	dir, err := unix.Openat(d.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Fchmod(dir, 0o755)
}

func notDirectory(d *Dir, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: d.Join(name), Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return &Error{d.Join(name), entryOf(&st), ErrSymlink, "; use the path that it points to"}
	}
	return &Error{d.Join(name), entryOf(&st), unix.ENOTDIR, ": it is a " + TypeName(st.Mode)}
}

// check returns an error for a directory in which users in w could replace entries that
// they do not own. A sticky directory is accepted if the entry is trusted, see CheckEntry.
func (d *Dir) check(w Writers) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	e := entryOf(&st)
	d.shared = e.WritableBy(w)
	switch {
	case !e.Trusted():
		return &Error{d.path, e, ErrUnsafe, fmt.Sprintf(": it is owned by uid %d", e.UID)}
	case e.ReplaceableBy(w):
		return &Error{d.path, e, ErrUnsafe, fmt.Sprintf(": mode %04o, gid %d", e.Mode&0o7777, e.GID)}
	}
	return nil
}

// CheckEntry returns an error for an entry that an untrusted user owns in a directory that
// other users can write to, because the owner could replace it.
func (d *Dir) CheckEntry(name string, st *unix.Stat_t) error {
	if e := entryOf(st); d.shared && !e.Trusted() {
		return &Error{d.Join(name), e, ErrUnsafe, fmt.Sprintf(": it is owned by uid %d in a directory that other users can write to", e.UID)}
	}
	return nil
}

// TypeName returns the name of the file type in st_mode, for messages.
func TypeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFDIR:
		return "directory"
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFLNK:
		return "symlink"
	case unix.S_IFREG:
		return "regular file"
	case unix.S_IFSOCK:
		return "socket"
	}
	return fmt.Sprintf("file of type %#o", mode&unix.S_IFMT)
}
