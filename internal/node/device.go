package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Device is the number of a block device.
type Device struct{ Major, Minor uint32 }

func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major, d.Minor) }

// ErrNoDevice reports that there is no block device at a path or behind a mount.
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

// DMName returns the device mapper's name of d, or "" when d is not a device of
// the device mapper.
func (n *Node) DMName(d Device) (string, error) {
	b, err := os.ReadFile(n.kernel(fmt.Sprintf("/sys/dev/block/%v/dm/name", d)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSuffix(string(b), "\n"), err
}

// WaitDevice returns as soon as path leads to a block device, at most limit later.
// The kernel wakes it (inotify), it does not poll. The error after limit is
// "timeout waiting for device <path>" and wraps ErrNoDevice.
func (n *Node) WaitDevice(ctx context.Context, path string, limit time.Duration) error {
	if _, err := n.BlockDevice(path); err == nil {
		return nil
	}
	var last error
	err := n.waitFor(ctx, limit, func() []string { return n.devicePlaces(path) }, func() (bool, error) {
		_, last = n.BlockDevice(path)
		if last != nil && !errors.Is(last, ErrNoDevice) {
			return false, last
		}
		return last == nil, nil
	})
	if errors.Is(err, errTooLate) {
		return fmt.Errorf("timeout waiting for device %s after %v: %w", path, limit, last)
	}
	if err != nil {
		return fmt.Errorf("waiting for device %s: %w", path, err)
	}
	return nil
}

// devicePlaces returns the directories in which something must appear next for path
// to become a device: the nearest one that exists above path and, when path is
// already a symlink, also above what it points to.
func (n *Node) devicePlaces(path string) []string {
	places := []string{nearest(n.kernel(path))}
	for range 8 {
		to, err := os.Readlink(n.kernel(path))
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = filepath.Clean(to)
		places = append(places, nearest(n.kernel(path)))
	}
	return places
}

// errTooLate is returned by waitFor when the limit is over.
var errTooLate = errors.New("not in time")

// fallbackPoll is used only when the kernel refuses inotify (too many watchers).
const fallbackPoll = 50 * time.Millisecond

const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// waitFor returns nil as soon as done returns true, errTooLate after limit, or the cause
// of ctx's end. It sleeps until something appears in one of the directories that
// places names. Those are asked for again before each look, since the directory to
// watch may itself appear late. A failure of done ends the wait.
func (n *Node) waitFor(ctx context.Context, limit time.Duration, places func() []string, done func() (bool, error)) error {
	if ok, err := done(); ok || err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		n.log().Warn("no inotify; looking for devices every 50 ms", "error", err, "hint", "raise fs.inotify.max_user_instances")
		return poll(ctx, deadline, fallbackPoll, done)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	// The kernel takes some milliseconds to close an inotify instance. The caller has a
	// mount to make and does not wait for that.
	defer func() { go f.Close() }()
	f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// Look only when the watches are where they belong, or what appears in
		// between is missed: a directory on the way, or the device itself.
		for now := places(); ; {
			for _, dir := range now {
				unix.InotifyAddWatch(fd, dir, watchMask) // gone again: the next round sees it
			}
			before := now
			if now = places(); slices.Equal(now, before) {
				break
			}
		}
		if ok, err := done(); ok || err != nil {
			return err
		}
		if _, err := f.Read(buf); err != nil {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case errors.Is(err, os.ErrDeadlineExceeded):
				return errTooLate
			}
			return err
		}
	}
}

// poll returns nil as soon as done returns true, errTooLate after the deadline, or the cause
// of ctx's end. It looks at once, every interval, and at the deadline. A failure of
// done ends it.
func poll(ctx context.Context, deadline time.Time, interval time.Duration, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return errTooLate
		}
		t := time.NewTimer(min(left, interval))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// nearest returns the deepest directory above path that exists.
func nearest(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == "/" || dir == "." {
			return dir
		}
	}
}
