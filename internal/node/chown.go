package node

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Chown gives the directory, file or device node at path to uid and gid. No symlink
// is followed, neither above path nor at it. On a mount point this is the root of
// what is mounted there, or the bound device node.
func (n *Node) Chown(path string, uid, gid uint32) error {
	return n.chown(path, uid, gid, func(int) error { return nil })
}

// ChownMount is Chown for the root of m, and refuses when another mount has taken
// the place of m since the table was read.
func (n *Node) ChownMount(m Mount, uid, gid uint32) error {
	return n.chown(m.Mountpoint, uid, gid, func(fd int) error {
		id, err := mountID(fd)
		if err == nil && id != m.ID {
			err = fmt.Errorf("%s: another mount is there now (id %d, expected %d)", m.Mountpoint, id, m.ID)
		}
		return err
	})
}

func (n *Node) chown(path string, uid, gid uint32, check func(fd int) error) error {
	p, _, err := n.openParent(path, false)
	if err != nil {
		return err
	}
	defer p.close()
	fd, err := unix.Openat(p.fd, filepath.Base(path), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if err := check(fd); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("%s: %w", path, ErrSymlink)
	}
	if st.Uid == uid && st.Gid == gid {
		return nil // it is asked for at every reconcile: spare the file system a write
	}
	if err := unix.Fchownat(fd, "", int(uid), int(gid), unix.AT_EMPTY_PATH); err != nil {
		return &fs.PathError{Op: "chown", Path: path, Err: err}
	}
	return nil
}

// mountID returns the id of the mount that our own descriptor fd was opened
// through, without touching the file system.
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
	return 0, fmt.Errorf("the kernel does not say which mount a file is on: no mnt_id in fdinfo")
}
