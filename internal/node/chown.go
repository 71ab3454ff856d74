package node

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Chown gives the directory, file or device node at path to uid and gid. No symlink
// is followed, neither above path nor at it. On a mount point this is the root of
// what is mounted there, or the bound device node.
func (n *Node) Chown(path string, uid, gid uint32) error {
	_, err := n.carryOut(request{Op: opChown, Path: path, UID: uid, GID: gid})
	return err
}

// ChownMount is Chown for the root of m, and refuses when another mount has taken
// the place of m since the table was read.
func (n *Node) ChownMount(m Mount, uid, gid uint32) error {
	_, err := n.carryOut(request{Op: opChown, Path: m.Mountpoint, MountID: m.ID, UID: uid, GID: gid})
	return err
}

// chown does the work of both. expected is the id of the mount at path; 0 means any.
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
	if expected != 0 {
		switch id, err := mountID(fd); {
		case err != nil:
			return err
		case id != expected:
			return fmt.Errorf("%s: another mount is there now (id %d, expected %d)", path, id, expected)
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		return fmt.Errorf("%s: %w", path, safepath.ErrSymlink)
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
