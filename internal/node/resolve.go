package node

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

// ResolveTarget returns the path of a mount target without symlinks. A symlink is
// followed only when it was made by root, or by us, in a directory that only root can
// change: a site may have moved /mnt to /var/mnt this way. A sticky directory such as
// /tmp is not enough. Any other symlink is an error, ErrSymlink or ErrUnsafe.
// Components that do not exist are kept as they are.
//
// The last component is not touched when something is mounted on it: the server of
// that mount may be dead. The result can be given to the other functions for mount
// targets, which follow no symlink at all.
func (n *Node) ResolveTarget(path string) (string, error) {
	real, err := n.carryOut(request{Op: opResolve, Path: path})
	if err != nil || len(real) != 1 {
		return "", err
	}
	return real[0], nil
}

func (n *Node) resolveTarget(path string) (string, error) {
	if err := checkPath(path); err != nil {
		return "", err
	}
	r := &resolver{n: n, path: path}
	defer func() {
		for _, p := range r.dirs {
			p.close()
		}
	}()
	if err := r.root(); err != nil {
		return "", err
	}
	real, err := r.walk(strings.Split(path[1:], "/"))
	if err != nil {
		return "", err
	}
	if err := checkPath(real); err != nil {
		return "", fmt.Errorf("%s leads to %w", path, err)
	}
	return real, nil
}

// resolver is one walk of ResolveTarget.
type resolver struct {
	n    *Node
	path string // what was asked for

	dirs   []*place // from / to where the walk is; none of them was reached by a symlink
	unsafe []error  // for each of them, why others than root can change it, or nil
	links  int      // symlinks followed
}

func (r *resolver) at() *place { return r.dirs[len(r.dirs)-1] }

// root starts at / again.
func (r *resolver) root() error {
	r.up(len(r.dirs))
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: "/", Err: err}
	}
	r.down(&place{fd: fd, path: "/"})
	return nil
}

// down continues in the directory p.
func (r *resolver) down(p *place) {
	r.dirs, r.unsafe = append(r.dirs, p), append(r.unsafe, r.n.trust(p))
}

// up leaves the last count directories.
func (r *resolver) up(count int) {
	for range count {
		r.at().close()
		r.dirs, r.unsafe = r.dirs[:len(r.dirs)-1], r.unsafe[:len(r.unsafe)-1]
	}
}

// walk returns what the names in todo lead to.
func (r *resolver) walk(todo []string) (string, error) {
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(r.dirs) > 1 {
				r.up(1)
			}
			continue
		}
		at := r.at().join(name)
		last := !slices.ContainsFunc(todo, func(s string) bool { return s != "" && s != "." })
		if last {
			if m, err := r.n.MountAt(at); err != nil || m != nil {
				return at, err // a mount point is no symlink
			}
		}
		_, err := unix.Readlinkat(r.at().fd, name, make([]byte, 1))
		switch {
		case err == nil:
			to, err := r.follow(name)
			if err != nil {
				return "", err
			}
			if filepath.IsAbs(to) {
				if err := r.root(); err != nil {
					return "", err
				}
			}
			todo = slices.Concat(strings.Split(to, "/"), todo)
			if ahead := filepath.Join(r.at().path, filepath.Join(todo...)); !isChild() && r.n.mayBlock(filepath.Dir(ahead)) {
				return "", errMayBlock
			}
		case err == unix.ENOENT && slices.Contains(todo, ".."):
			return "", fmt.Errorf("%s leads through %s/..: %w", r.path, at, fs.ErrNotExist)
		case err == unix.ENOENT:
			return filepath.Join(at, filepath.Join(todo...)), nil
		case err != unix.EINVAL:
			return "", &fs.PathError{Op: "readlink", Path: at, Err: err}
		case last:
			return at, nil
		default:
			next, _, err := r.n.enter(r.at(), name, false)
			if err != nil {
				return "", err
			}
			r.down(next)
		}
	}
	return r.at().path, nil
}

// follow returns where the symlink name points to, if it is one that can be followed.
func (r *resolver) follow(name string) (string, error) {
	link := r.at().join(name)
	refuse := func(format string, a ...any) (string, error) {
		return "", fmt.Errorf("%s: %w that is not followed: %s", link, ErrSymlink, fmt.Sprintf(format, a...))
	}
	if r.links++; r.links > maxLinks {
		return "", fmt.Errorf("%s leads through more than %d symlinks: %w", r.path, maxLinks, unix.ELOOP)
	}
	for _, err := range r.unsafe {
		if err != nil {
			return "", fmt.Errorf("%s: %w, and its directory is unsafe: %w", link, ErrSymlink, err)
		}
	}
	if r.at().shared {
		return refuse("others than root can make entries in %s", r.at().path)
	}
	// Owner and text are those of one inode, whatever happens to the name.
	fd, err := unix.Openat(r.at().fd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: link, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", &fs.PathError{Op: "stat", Path: link, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", &fs.PathError{Op: "readlink", Path: link, Err: unix.EAGAIN} // it was replaced just now
	}
	if !r.n.AnyOwner && !trusted(st.Uid) {
		return refuse("it belongs to uid %d", st.Uid)
	}
	text := make([]byte, unix.PathMax)
	size, err := unix.Readlinkat(fd, "", text)
	if err != nil {
		return "", &fs.PathError{Op: "readlink", Path: link, Err: err}
	}
	if size == 0 || size == len(text) {
		return refuse("its text cannot be used")
	}
	return string(text[:size]), nil
}
