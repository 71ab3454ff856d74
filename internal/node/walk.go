package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrSymlink says that a component of a mount target is a symlink.
	ErrSymlink = errors.New("is a symlink")
	// ErrUnsafe says that others than root could replace a component of a mount
	// target while it is used.
	ErrUnsafe = errors.New("can be changed by others than root")
	// ErrBadPath says that the text is no path for a mount target.
	ErrBadPath = errors.New("not a usable path")
)

// place is an open directory on the way to a mount target, held by descriptor: it
// stays the same directory whatever happens to its name.
type place struct {
	fd     int
	path   string
	shared bool // others can make entries here (a sticky directory like /tmp)
}

func (p *place) close() { unix.Close(p.fd) }

// join returns the path of an entry, for messages.
func (p *place) join(name string) string { return filepath.Join(p.path, name) }

// checkPath refuses what cannot be a mount target, before the kernel sees it.
func checkPath(path string) error {
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

// openParent walks from / to the directory that holds path, one component at a
// time, without following a symlink, and refuses a directory in which others than
// root could swap what we are about to use. Missing directories are made when make
// is set; created lists them from the top, also when an error is returned.
func (n *Node) openParent(path string, make bool) (p *place, created []string, err error) {
	if err := checkPath(path); err != nil {
		return nil, nil, err
	}
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	p = &place{fd: fd, path: "/"}
	if err := n.trust(p); err != nil {
		p.close()
		return nil, nil, err
	}
	for _, name := range strings.Split(filepath.Dir(path)[1:], "/") {
		if name == "" { // the parent is /
			continue
		}
		next, made, err := n.enter(p, name, make)
		if made {
			created = append(created, p.join(name))
		}
		if err == nil {
			if err = n.trust(next); err != nil {
				next.close()
			}
		}
		p.close()
		if err != nil {
			return nil, created, err
		}
		p = next
	}
	return p, created, nil
}

// enter opens the directory name in p, which it makes first when it is missing and
// make is set.
func (n *Node) enter(p *place, name string, make bool) (next *place, made bool, err error) {
	path := p.join(name)
	for range 5 { // somebody else may make or remove it at the same time
		fd, err := unix.Openat(p.fd, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err == nil {
			next = &place{fd: fd, path: path}
			if made {
				err = openMode(p, name, fd)
			}
			if err != nil {
				next.close()
				return nil, made, &fs.PathError{Op: "chmod", Path: path, Err: err}
			}
			return next, made, nil
		}
		if err == unix.ENOTDIR || err == unix.ELOOP {
			return nil, made, notDirectory(p, name)
		}
		if err != unix.ENOENT || !make {
			return nil, made, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		switch err := unix.Mkdirat(p.fd, name, 0o755); err {
		case nil:
			made = true
		case unix.EEXIST:
		default:
			return nil, made, &fs.PathError{Op: "mkdir", Path: path, Err: err}
		}
	}
	return nil, made, &fs.PathError{Op: "mkdir", Path: path, Err: unix.EAGAIN}
}

// openMode gives the directory that we just made mode 0755 also under a strict umask.
func openMode(p *place, name string, fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&0o777 == 0o755 {
		return err
	}
	dir, err := unix.Openat(p.fd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return unix.Fchmod(dir, 0o755)
}

func notDirectory(p *place, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return &fs.PathError{Op: "stat", Path: p.join(name), Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("%s: %w; use the path that it points to", p.join(name), ErrSymlink)
	}
	return fmt.Errorf("%s: %w: it is a %s", p.join(name), unix.ENOTDIR, kind(st.Mode))
}

// trust refuses a directory in which others could replace entries that are not
// theirs. A sticky one is fine as long as the entry is ours, see owned.
func (n *Node) trust(p *place) error {
	if n.AnyOwner {
		return nil
	}
	var st unix.Stat_t
	if err := unix.Fstat(p.fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: p.path, Err: err}
	}
	writable := st.Mode&0o002 != 0 || st.Mode&0o020 != 0 && st.Gid != 0
	p.shared = writable
	switch {
	case !trusted(st.Uid):
		return fmt.Errorf("%s: %w: it belongs to uid %d", p.path, ErrUnsafe, st.Uid)
	case writable && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s: %w: mode %04o, gid %d", p.path, ErrUnsafe, st.Mode&0o7777, st.Gid)
	}
	return nil
}

// owned refuses an entry of a shared directory that belongs to somebody else, who
// could replace it.
func (n *Node) owned(p *place, name string, st *unix.Stat_t) error {
	if p.shared && !trusted(st.Uid) {
		return fmt.Errorf("%s: %w: it belongs to uid %d in a directory that all can write", p.join(name), ErrUnsafe, st.Uid)
	}
	return nil
}

// trusted tells whose files cannot be a trap: root's and our own.
func trusted(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
