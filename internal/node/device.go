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

// ErrNoDevice means that there is no block device at a path or in a mount.
var ErrNoDevice = errors.New("no block device")

// BlockDevice returns the number of the block device whose node is at path. It follows
// symlinks (udev creates them in /dev/mapper) inside /dev. The error is ErrNoDevice if
// there is no node, or another type of file.
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

// BoundDevice returns the block device of the mount m, a device node bound over a file (a
// raw allocation). The mount table shows only which file of which file system is bound;
// BoundDevice reads the node through another mount of that file system (usually /dev),
// never through the target. The error is ErrNoDevice if m is something else, if the node
// was removed since (Removed), or if no other mount shows it.
func (n *Node) BoundDevice(m Mount) (Device, error) {
	fail := func(format string, a ...any) (Device, error) {
		return Device{}, fmt.Errorf("%s: %w: %s", m.Mountpoint, ErrNoDevice, fmt.Sprintf(format, a...))
	}
	if m.FSType != "devtmpfs" && m.FSType != "tmpfs" {
		return fail("it is a mount of type %s", m.FSType)
	}
	if m.Removed() {
		return fail("the device node %s was removed", m.OriginalRoot())
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
			continue // lstat could block
		}
		// Node.Root is the prefix of the table, and so also of the paths in it.
		var st unix.Stat_t
		if err := unix.Lstat(n.kernel(at), &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFBLK {
			continue
		}
		return Device{unix.Major(st.Rdev), unix.Minor(st.Rdev)}, nil
	}
	return fail("no other mount shows %s of the %s", m.Root, m.FSType)
}

// DMName returns the device-mapper name of d, or "" if d is not a device of the device
// mapper.
func (n *Node) DMName(d Device) (string, error) {
	b, err := os.ReadFile(n.kernel(fmt.Sprintf("/sys/dev/block/%v/dm/name", d)))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return strings.TrimSuffix(string(b), "\n"), err
}

// WaitDevice returns as soon as path leads to a block device, at most after limit. It
// uses inotify rather than polling. The error after limit is "timeout waiting for device
// <path>" and wraps ErrNoDevice.
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
	if errors.Is(err, ErrTooLate) {
		return fmt.Errorf("timeout waiting for device %s after %v: %w", path, limit, last)
	}
	if err != nil {
		return fmt.Errorf("waiting for device %s: %w", path, err)
	}
	return nil
}

// WaitFiles returns nil as soon as done returns true, or its error. It calls done whenever a file is
// created, replaced or removed in one of the directories, or beside one. They need not exist. The
// error after limit is ErrTooLate.
func (n *Node) WaitFiles(ctx context.Context, dirs []string, limit time.Duration, done func() (bool, error)) error {
	return n.waitFor(ctx, limit, func() (places []string) {
		for _, dir := range dirs {
			places = append(places, dir, nearest(dir))
		}
		return places
	}, done)
}

// devicePlaces returns the directories in which an entry must appear before path can be a
// device: the nearest existing directory above path and, if path is a symlink, also above
// its target.
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

// ErrTooLate means that something has not happened within the time limit.
var ErrTooLate = errors.New("not in time")

// fallbackPoll is the polling interval if inotify is not available (too many instances).
const fallbackPoll = 50 * time.Millisecond

const watchMask = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_ATTRIB | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// waitFor returns nil as soon as done returns true, ErrTooLate after limit, the cause of
// ctx, or an error of done. It sleeps until something appears in one of the directories
// that places returns, or is removed there. It calls places before each call of done,
// because the directory to watch may itself appear later.
func (n *Node) waitFor(ctx context.Context, limit time.Duration, places func() []string, done func() (bool, error)) error {
	if ok, err := done(); ok || err != nil {
		return err
	}
	deadline := time.Now().Add(limit)
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		n.log().Warn("inotify is not available; polling for devices every 50 ms", "error", err, "hint", "raise fs.inotify.max_user_instances")
		return poll(ctx, deadline, fallbackPoll, done)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	// Closing an inotify instance takes the kernel some milliseconds; the caller does not
	// wait for that.
	defer func() { go f.Close() }()
	f.SetReadDeadline(deadline)
	stop := context.AfterFunc(ctx, func() { f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64*(unix.SizeofInotifyEvent+unix.NAME_MAX+1))
	for {
		// Call done only after the watches are complete; otherwise a directory or the
		// device could appear unnoticed in between.
		for now := places(); ; {
			for _, dir := range now {
				unix.InotifyAddWatch(fd, dir, watchMask) // removed since: the next round detects it
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
				return ErrTooLate
			}
			return err
		}
	}
}

// poll returns nil as soon as done returns true, ErrTooLate after the deadline, the cause
// of ctx, or an error of done. It calls done immediately, at every interval, and at the
// deadline.
func poll(ctx context.Context, deadline time.Time, interval time.Duration, done func() (bool, error)) error {
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		left := time.Until(deadline)
		if left <= 0 {
			return ErrTooLate
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

// nearest returns the deepest existing directory above path.
func nearest(path string) string {
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err == nil && st.IsDir() || dir == "/" || dir == "." {
			return dir
		}
	}
}

// DeviceGone reports whether the device of a mounted file system, in the form MAJOR:MINOR, has
// disappeared, or one that is directly below it if it belongs to the device mapper: the kernel keeps
// the link to a removed device. It reads only sysfs. For file systems without a block device (major
// 0) it returns false.
func (n *Node) DeviceGone(number string) bool {
	var d Device
	if _, err := fmt.Sscanf(number, "%d:%d", &d.Major, &d.Minor); err != nil || d.String() != number || d.Major == 0 {
		return false // not the name of a directory of sysfs
	}
	dir := n.kernel("/sys/dev/block/" + number)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		_, err = os.Stat(filepath.Dir(dir)) // without sysfs, nothing is known
		return err == nil
	}
	if _, err := os.Stat(filepath.Join(dir, "dm")); err != nil {
		return false
	}
	below, err := os.ReadDir(filepath.Join(dir, "slaves"))
	return err == nil && (len(below) == 0 || slices.ContainsFunc(below, func(e fs.DirEntry) bool {
		_, err := os.Stat(filepath.Join(dir, "slaves", e.Name()))
		return errors.Is(err, fs.ErrNotExist)
	}))
}
