package safepath

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symlinks one path may lead through, as in the kernel
// (path_resolution(7)).
const maxLinks = 40

// Directory returns the path of an existing directory with symlinks resolved. Each
// directory of the path, including the last one, must be owned by a trusted user, and
// other users must not be able to replace its entries. Directory follows a symlink if a
// trusted user owns it.
func Directory(path string) (string, error) {
	return (&walk{path: path, strict: true}).do()
}

// Hooks observe the walk of Target.
type Hooks struct {
	// Known reports whether the last component is known not to be a symlink. If so, the
	// walk does not touch it.
	Known func(path string) (bool, error)
	// Followed is called with the path to which a symlink leads. An error ends the walk.
	Followed func(path string) error
}

// Target returns the path of a mount target with symlinks resolved. It follows a symlink
// only if a trusted user owns it and only root can change its directory: a site may have
// moved /mnt to /var/mnt this way. A sticky directory such as /tmp is not enough. Any
// other symlink is an error, ErrSymlink or ErrUnsafe. Components that do not exist are
// not changed.
func Target(path string, h Hooks) (string, error) {
	if err := CheckPath(path); err != nil {
		return "", err
	}
	real, err := (&walk{path: path, Hooks: h}).do()
	if err != nil {
		return "", err
	}
	if err := CheckPath(real); err != nil {
		return "", fmt.Errorf("%s leads to %w", path, err)
	}
	return real, nil
}

// walk is one walk of Directory (strict) or Target.
type walk struct {
	path   string // the requested path
	strict bool
	Hooks

	dirs   []*Dir  // from / to the current directory; none was reached through a symlink
	unsafe []error // for each directory, why users other than root can change it, or nil
	links  int     // number of followed symlinks
}

func (w *walk) at() *Dir { return w.dirs[len(w.dirs)-1] }

// do walks the path and returns where it leads.
func (w *walk) do() (string, error) {
	defer func() { w.up(len(w.dirs)) }()
	if err := w.root(); err != nil {
		return "", err
	}
	return w.names(strings.Split(w.path, "/"))
}

// root starts at / again.
func (w *walk) root() error {
	w.up(len(w.dirs))
	d, err := openRoot()
	if err != nil {
		return err
	}
	return w.down(d)
}

// down continues in the directory d.
func (w *walk) down(d *Dir) error {
	writers := ForeignGroups
	if w.strict {
		writers = Groups
	}
	err := d.check(writers)
	w.dirs, w.unsafe = append(w.dirs, d), append(w.unsafe, err)
	if w.strict {
		return err
	}
	return nil // follow checks w.unsafe
}

// up leaves the last count directories.
func (w *walk) up(count int) {
	for range count {
		w.at().Close()
		w.dirs, w.unsafe = w.dirs[:len(w.dirs)-1], w.unsafe[:len(w.unsafe)-1]
	}
}

// names walks the names in todo and returns where they lead.
func (w *walk) names(todo []string) (string, error) {
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(w.dirs) > 1 {
				w.up(1)
			}
			continue
		}
		at := w.at().Join(name)
		last := !w.strict && !slices.ContainsFunc(todo, func(s string) bool { return s != "" && s != "." })
		if last && w.Known != nil {
			if known, err := w.Known(at); err != nil || known {
				return at, err
			}
		}
		_, err := unix.Readlinkat(w.at().fd, name, make([]byte, 1))
		switch {
		case err == nil:
			to, err := w.follow(name)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(to) {
				if err := w.root(); err != nil {
					return "", err
				}
			}
			todo = slices.Concat(strings.Split(to, "/"), todo)
			if w.Followed != nil {
				if err := w.Followed(filepath.Join(w.at().path, filepath.Join(todo...))); err != nil {
					return "", err
				}
			}
		case err == unix.ENOENT && w.strict:
			return "", &fs.PathError{Op: "lstat", Path: at, Err: err}
		case err == unix.ENOENT && slices.Contains(todo, ".."):
			return "", fmt.Errorf("%s leads through %s/..: %w", w.path, at, fs.ErrNotExist)
		case err == unix.ENOENT:
			return filepath.Join(at, filepath.Join(todo...)), nil
		case err != unix.EINVAL:
			return "", &fs.PathError{Op: "readlink", Path: at, Err: err}
		case last:
			return at, nil
		default:
			next, _, err := w.at().Enter(name, false)
			if err != nil {
				return "", err
			}
			if err := w.down(next); err != nil {
				return "", err
			}
		}
	}
	return w.at().path, nil
}

// follow returns the target of the symlink name, or an error if it must not be followed.
func (w *walk) follow(name string) (string, error) {
	link := w.at().Join(name)
	refuse := func(e Entry, format string, a ...any) (string, error) {
		return "", &Error{link, e, ErrSymlink, " that is not followed: " + fmt.Sprintf(format, a...)}
	}
	if w.links++; w.links > maxLinks {
		return "", fmt.Errorf("%s leads through more than %d symlinks: %w", w.path, maxLinks, unix.ELOOP)
	}
	for _, err := range w.unsafe {
		if err != nil {
			return "", fmt.Errorf("%s: %w, and its directory is unsafe: %w", link, ErrSymlink, err)
		}
	}
	if w.at().shared && !w.strict {
		return refuse(Entry{}, "users other than root can create entries in %s", w.at().path)
	}
	// The descriptor makes owner and target those of one inode, even if the name changes.
	fd, err := unix.Openat(w.at().fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: link, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: link, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", &fs.PathError{Op: "readlink", Path: link, Err: unix.EAGAIN} // it has just been replaced
	}
	if e := entryOf(&st); !e.Trusted() {
		return refuse(e, "it is owned by uid %d", e.UID)
	}
	text := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(fd, "", text)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: link, Err: err}
	}
	if size == 0 || size == len(text) {
		return refuse(entryOf(&st), "its target is not valid")
	}
	return string(text[:size]), nil
}
