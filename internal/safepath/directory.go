package safepath

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Dir is an open directory on the way to a path, held by descriptor: it stays the
// same directory whatever happens to its name.
type Dir struct {
	fd     int // O_PATH
	path   string
	shared bool // others can make entries here (a sticky directory like /tmp)
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

// CheckPath refuses what cannot be the path of a mount target, before the kernel
// sees it. The error wraps ErrBadPath.
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
		why = "it has control characters"
	default:
		return nil
	}
	return fmt.Errorf("%.200q: %w: %s", path, ErrBadPath, why)
}

// OpenParent walks from / to the directory that holds path, one component at a
// time, without following a symlink, and refuses a directory in which others than
// root could swap what is about to be used. Missing directories are made if make is
// set; created lists them from the top, even if an error is returned.
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

// Enter opens the directory name in d. If it is missing and make is set, Enter
// makes it with mode 0755.
func (d *Dir) Enter(name string, make bool) (next *Dir, made bool, err error) {
	path := d.Join(name)
	for range 5 { // another process may make or remove it at the same time
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

// openMode gives a directory that was just made mode 0755 even under a strict umask.
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

// check refuses a directory in which w could replace entries that are not theirs. A
// sticky one is fine as long as the entry is trusted, see CheckEntry.
func (d *Dir) check(w Writers) error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.path, Err: err}
	}
	e := entryOf(&st)
	d.shared = e.WritableBy(w)
	switch {
	case !e.Trusted():
		return &Error{d.path, e, ErrUnsafe, fmt.Sprintf(": it belongs to uid %d", e.UID)}
	case e.ReplaceableBy(w):
		return &Error{d.path, e, ErrUnsafe, fmt.Sprintf(": mode %04o, gid %d", e.Mode&0o7777, e.GID)}
	}
	return nil
}

// CheckEntry refuses an entry of a directory that others can write, if it belongs to
// one of them, who could replace it.
func (d *Dir) CheckEntry(name string, st *unix.Stat_t) error {
	if e := entryOf(st); d.shared && !e.Trusted() {
		return &Error{d.Join(name), e, ErrUnsafe, fmt.Sprintf(": it belongs to uid %d in a directory that all can write", e.UID)}
	}
	return nil
}

// TypeName names the type in st_mode for messages.
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
