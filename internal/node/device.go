package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Device is the number of a block device.
type Device struct{ Major, Minor uint32 }

func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// ErrNoDevice says that there is no block device where one was looked for.
var ErrNoDevice = errors.New("no block device")

// BlockDevice returns the number of the block device whose node is at path. A
// symlink (udev makes them in /dev/mapper) is followed as long as it stays inside
// /dev. The error is ErrNoDevice when there is no node, or another kind of file.
func (n *Node) BlockDevice(path string) (Device, error) {
	at := path
	for range 8 {
		if !filepath.IsAbs(at) || filepath.Clean(at) != at || !safepath.Within(at, "/dev") {
			return Device{}, fmt.Errorf("%s: %w: %s is not inside /dev", path, ErrNoDevice, at)
		}
		var st unix.Stat_t
		if err := unix.Lstat(n.kernel(at), &st); err != nil {
			if err == unix.ENOENT || err == unix.ENOTDIR {
				return Device{}, fmt.Errorf("%s: %w", at, ErrNoDevice)
			}
			return Device{}, &fs.PathError{Op: "lstat", Path: at, Err: err}
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFBLK:
			return Device{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
		case unix.S_IFLNK:
			to, err := os.Readlink(n.kernel(at))
			if err != nil {
				return Device{}, err
			}
			if !filepath.IsAbs(to) {
				to = filepath.Join(filepath.Dir(at), to)
			}
			at = filepath.Clean(to)
		default:
			return Device{}, fmt.Errorf("%s: %w: it is a %s", at, ErrNoDevice, safepath.TypeName(st.Mode))
		}
	}
	return Device{}, fmt.Errorf("%s: %w: too many symlinks", path, ErrNoDevice)
}

// BoundDevice returns which block device the mount m gives access to, when m is a
// device node bound over a file (a raw allocation). The table only says which file
// of which file system is bound; the node is looked at through another mount of
// that file system (usually /dev), never through the target. The error is
// ErrNoDevice when m is something else, when the node was removed since (Root ends
// in //deleted), or when no other mount shows it.
func (n *Node) BoundDevice(m Mount) (Device, error) {
	fail := func(format string, a ...any) (Device, error) {
		return Device{}, fmt.Errorf("%s: %w: %s", m.Mountpoint, ErrNoDevice, fmt.Sprintf(format, a...))
	}
	if m.FSType != "devtmpfs" && m.FSType != "tmpfs" {
		return fail("it is a mount of type %s", m.FSType)
	}
	if strings.HasSuffix(m.Root, "//deleted") {
		return fail("the device node %s was removed", strings.TrimSuffix(m.Root, "//deleted"))
	}
	table, err := n.mounts(func(string) bool { return true })
	if err != nil {
		return Device{}, err
	}
	for i := range table {
		c := &table[i]
		if c.ID == m.ID || c.Major != m.Major || c.Minor != m.Minor || c.Root == m.Root || !safepath.Within(m.Root, c.Root) {
			continue
		}
		at := filepath.Join(c.Mountpoint, strings.TrimPrefix(m.Root, c.Root))
		if v := visible(table, at); v == nil || v.ID != c.ID {
			continue // another mount hides it
		}
		if passes(table, at) {
			continue // the look could block
		}
		// Root applies to the table, so also to what the table names.
		var st unix.Stat_t
		if err := unix.Lstat(n.kernel(at), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		return Device{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
	}
	return fail("no other mount shows %s of the %s", m.Root, m.FSType)
}

// DMName returns the device mapper's name of d, or "" when d is no device of the
// device mapper.
func (n *Node) DMName(d Device) (string, error) {
	b, err := os.ReadFile(n.kernel(fmt.Sprintf("/sys/dev/block/%v/dm/name", d)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSuffix(string(b), "\n"), err
}
