package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// ResolveTarget returns the path of a mount target with symlinks resolved, as
// safepath.Target does. It does not touch the last component if something is mounted on
// it, because the server of that mount may be dead. Pass the result to the other functions
// for mount targets, which follow no symlinks.
func (n *Node) ResolveTarget(path string) (string, error) {
	real, err := n.carryOut(request{Op: opResolve, Path: path})
	if err != nil || len(real) != 1 {
		return "", err
	}
	return real[0], nil
}

func (n *Node) resolveTarget(path string) (string, error) {
	return safepath.Target(path, safepath.Hooks{
		Known: func(path string) (bool, error) {
			m, err := n.MountAt(path)
			return m != nil, err // a mount point is not a symlink
		},
		Followed: func(path string) error {
			if !isChild() && n.mayBlock(filepath.Dir(path)) {
				return errMayBlock
			}
			return nil
		},
	})
}

// MakeDirectory creates the mount target path as a directory with mode 0755, and its
// parents. An existing directory is accepted; anything else at path is an error. created
// lists what was created, from the top, even if an error is returned: pass it to
// RemoveTarget. Errors: safepath.ErrBadPath, safepath.ErrSymlink, safepath.ErrUnsafe, or
// those of the kernel.
func (n *Node) MakeDirectory(path string) (created []string, err error) {
	return n.carryOut(request{Op: opMakeDirectory, Path: path})
}

func (n *Node) makeDirectory(path string) (created []string, err error) {
	p, created, err := safepath.OpenParent(path, true)
	if err != nil {
		return created, err
	}
	defer p.Close()
	name := filepath.Base(path)
	dir, made, err := p.Enter(name, true)
	if made {
		created = append(created, path)
	}
	if err != nil {
		return created, err
	}
	defer dir.Close()
	var st unix.Stat_t
	if err := unix.Fstat(dir.FD(), &st); err != nil {
		return created, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return created, p.CheckEntry(name, &st)
}

// MakeFile creates the mount target path as an empty file with mode 0644, and its parents
// with mode 0755. An existing empty regular file is accepted; anything else at path is an
// error and is not changed. created and the errors are those of MakeDirectory.
func (n *Node) MakeFile(path string) (created []string, err error) {
	return n.carryOut(request{Op: opMakeFile, Path: path})
}

func (n *Node) makeFile(path string) (created []string, err error) {
	p, created, err := safepath.OpenParent(path, true)
	if err != nil {
		return created, err
	}
	defer p.Close()
	name := filepath.Base(path)
	fd, err := unix.Openat(p.FD(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	if err == nil {
		defer unix.Close(fd)
		if err := unix.Fchmod(fd, 0o644); err != nil { // the umask may be strict
			return append(created, path), &fs.PathError{Op: "chmod", Path: path, Err: err}
		}
		return append(created, path), nil
	}
	if err != unix.EEXIST {
		return created, &fs.PathError{Op: "create", Path: path, Err: err}
	}
	return created, n.emptyFile(p, name)
}

// emptyFile returns nil if name is an empty regular file.
func (n *Node) emptyFile(p *safepath.Dir, name string) error {
	var st unix.Stat_t
	if err := unix.Fstatat(p.FD(), name, &st, unix.AT_SYMLINK_NOFOLLOW|unix.AT_NO_AUTOMOUNT); err != nil {
		return &fs.PathError{Op: "stat", Path: p.Join(name), Err: err}
	}
	switch mode := st.Mode & unix.S_IFMT; {
	case mode == unix.S_IFLNK:
		return fmt.Errorf("%s: %w", p.Join(name), safepath.ErrSymlink)
	case mode != unix.S_IFREG:
		return fmt.Errorf("%s: %w and is a %s, not an empty file", p.Join(name), fs.ErrExist, safepath.TypeName(st.Mode))
	case st.Size != 0:
		return fmt.Errorf("%s: %w and contains %d bytes; move it away", p.Join(name), fs.ErrExist, st.Size)
	}
	return p.CheckEntry(name, &st)
}

// RemoveTarget removes what was created for the mount target path: the entries of created
// (as returned by the Make functions), deepest first, as long as they are empty. It does
// not remove anything else. A missing entry is not an error.
//
// left lists the entries of created that still exist. If err is not nil, path itself is in
// created and could not be removed (unix.EBUSY: something is mounted on it). If err is nil
// and left is not empty, only directories above path are left, because they are in use for
// something else.
func (n *Node) RemoveTarget(path string, created []string) (left []string, err error) {
	return n.carryOut(request{Op: opRemoveTarget, Path: path, Created: created})
}

func (n *Node) removeTarget(path string, created []string) (left []string, err error) {
	if err := safepath.CheckPath(path); err != nil {
		return nil, err
	}
	for _, c := range created {
		if safepath.CheckPath(c) != nil || !safepath.Within(path, c) {
			return nil, fmt.Errorf("%.200q: %w: it is not above %s", c, safepath.ErrBadPath, path)
		}
	}
	deepest := slices.Clone(created)
	slices.SortFunc(deepest, func(a, b string) int { return len(b) - len(a) })
	for i, c := range deepest {
		err := n.remove(c)
		switch {
		case err == nil:
			continue
		case c == path:
			return deepest, err
		case !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY):
			n.log().Warn("cannot remove a directory that was created for a mount", "path", c, "error", err)
		}
		return deepest[i:], nil
	}
	return nil, nil
}

// remove removes one empty file or directory. It follows no symlink.
func (n *Node) remove(path string) error {
	p, _, err := safepath.OpenParent(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.Close()
	name := filepath.Base(path)
	switch err := unix.Unlinkat(p.FD(), name, unix.AT_REMOVEDIR); err {
	case nil, unix.ENOENT:
		return nil
	case unix.ENOTDIR:
	case unix.ENOTEMPTY, unix.EEXIST:
		return &fs.PathError{Op: "remove", Path: path, Err: unix.ENOTEMPTY}
	default:
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	// If something is mounted on the file, stat shows that instead, usually a device;
	// return EBUSY then.
	if err := n.emptyFile(p, name); err != nil {
		if at, merr := n.MountAt(path); merr == nil && at != nil {
			err = unix.EBUSY
		}
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	if err := unix.Unlinkat(p.FD(), name, 0); err != nil && err != unix.ENOENT {
		return &fs.PathError{Op: "remove", Path: path, Err: err}
	}
	return nil
}

// MissingTargets returns what MakeDirectory or MakeFile would create for the mount target
// path, from the top. A caller that must survive a crash saves the list first. The list is
// empty if nothing is missing, or if something exists that the Make functions refuse.
func (n *Node) MissingTargets(path string) []string {
	missing, err := n.carryOut(request{Op: opMissing, Path: path})
	if err != nil {
		n.log().Debug("cannot determine which parts of a mount target are missing", "path", path, "error", err)
	}
	return missing
}

func (n *Node) missingTargets(path string) []string {
	if safepath.CheckPath(path) != nil {
		return nil
	}
	var missing []string
	for i := 1; i <= len(path); i++ {
		if i < len(path) && path[i] != '/' {
			continue
		}
		part := path[:i]
		if len(missing) > 0 {
			missing = append(missing, part)
			continue
		}
		st, err := os.Lstat(part)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			missing = append(missing, part)
		case err != nil || !st.IsDir():
			return nil
		}
	}
	return missing
}

// ChownMount sets the owner of the root of the mount m, or of the bound device node, to
// uid and gid. It follows no symlinks, neither above the mount point nor at it. It is an
// error if another mount has replaced m since the table was read.
func (n *Node) ChownMount(m Mount, uid, gid uint32) error {
	_, err := n.carryOut(request{Op: opChown, Path: m.Mountpoint, MountID: m.ID, UID: uid, GID: gid})
	return err
}

// chown does the work of ChownMount. expected is the ID of the mount at path.
func (n *Node) chown(path string, expected int, uid, gid uint32) error {
	p, _, err := safepath.OpenParent(path, false)
	if err != nil {
		return err
	}
	defer p.Close()
	fd, err := unix.Openat(p.FD(), filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	switch id, err := mountID(fd); {
	case err != nil:
		return err
	case id != expected:
		return fmt.Errorf("%s: another file system is mounted there now (mount id %d, expected %d)", path, id, expected)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("%s: %w", path, safepath.ErrSymlink)
	}
	if st.Uid == uid && st.Gid == gid {
		return nil // each reconcile calls this: avoid a write
	}
	if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// mountID returns the ID of the mount through which our descriptor fd was opened, without
// access to the file system.
func mountID(fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", fd))
	if err != nil {
		return 0, err
	}
	return parseMountID(string(b))
}

func parseMountID(fdinfo string) (int, error) {
	for line := range strings.Lines(fdinfo) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, fmt.Errorf("cannot determine the mount of a file: fdinfo has no mnt_id")
}

// WriteFileIn replaces the file name in the directory dir, to which users may be able to
// write, see safepath.ReplaceFile. The file has mode 0644 and the owner uid and gid. The
// last component of dir must not be a symlink.
func (n *Node) WriteFileIn(dir, name string, data []byte, uid, gid uint32) error {
	_, err := n.carryOut(request{Op: opWriteFile, Path: dir, Name: name, Data: data, UID: uid, GID: gid})
	return err
}

func (n *Node) writeFileIn(dir, name string, data []byte, uid, gid uint32) error {
	if name == "" || strings.ContainsRune(name, '/') {
		return fmt.Errorf("%q is not a file name", name)
	}
	// The directory is the root of a mount, which users may own, so unlike for a mount
	// target its owner does not matter.
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", dir, err)
	}
	defer unix.Close(fd)
	tmp := fmt.Sprintf("%s.%d.new", name, os.Getpid())
	if err := safepath.ReplaceFile(fd, name, tmp, data, int(uid), int(gid)); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	return nil
}
