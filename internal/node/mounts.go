package node

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// Mount is one line of the mount table (proc_pid_mountinfo(5)), escapes decoded.
type Mount struct {
	ID, Parent   int
	Major, Minor int    // device of the file system; anonymous for lustre and tmpfs
	Root         string // mounted directory or file of the file system, see Removed
	Mountpoint   string
	FSType       string
	Source       string
	Propagation  string // shared:N, master:N, both or neither (mount_namespaces(7))
}

// removedSuffix is what the kernel appends to Root when that directory or file was removed.
const removedSuffix = "//deleted"

// Removed reports whether the mounted directory or file was removed since, for example the node of a
// device that was deactivated.
func (m Mount) Removed() bool { return strings.HasSuffix(m.Root, removedSuffix) }

// OriginalRoot returns Root without the mark of a removal.
func (m Mount) OriginalRoot() string { return strings.TrimSuffix(m.Root, removedSuffix) }

// Device returns the device number of the file system.
func (m Mount) Device() Device { return Device{uint32(m.Major), uint32(m.Minor)} }

// MountAt returns the visible mount at exactly path: the topmost one if several are
// stacked, and none that a mount above it hides. It returns nil if path is not a mount
// point. It reads only the mount table and never touches path, so a network file system
// whose server does not respond does not block it.
func (n *Node) MountAt(path string) (*Mount, error) {
	table, err := n.mounts(func(at string) bool { return safepath.Within(path, at) })
	if err != nil {
		return nil, err
	}
	if m := visible(table, path); m != nil && m.Mountpoint == path {
		return m, nil
	}
	return nil, nil
}

// MountsBelow returns the mounts strictly below path, including hidden ones, in the order
// of the table. Like MountAt it reads only the table.
func (n *Node) MountsBelow(path string) ([]Mount, error) {
	return n.mounts(func(at string) bool { return at != path && safepath.Within(at, path) })
}

// MountsOn returns all mounts whose mount point is exactly path, including hidden ones, in
// the order of the table. Like MountAt it reads only the table.
func (n *Node) MountsOn(path string) ([]Mount, error) {
	return n.mounts(func(at string) bool { return at == path })
}

// HiddenBy returns nil if m is the visible mount at its mount point. Otherwise it returns
// the visible one: a mount that is stacked on m, or one over a directory above it. The
// error is fs.ErrNotExist if m is no longer in the table.
func (n *Node) HiddenBy(m Mount) (*Mount, error) {
	table, err := n.mounts(func(at string) bool { return safepath.Within(m.Mountpoint, at) })
	if err != nil {
		return nil, err
	}
	same := func(c Mount) bool { return c.ID == m.ID && c.Mountpoint == m.Mountpoint && c.Device() == m.Device() }
	if !slices.ContainsFunc(table, same) {
		return nil, fmt.Errorf("mount %d of device %v is no longer at %s: %w", m.ID, m.Device(), m.Mountpoint, fs.ErrNotExist)
	}
	if v := visible(table, m.Mountpoint); v != nil && !same(*v) {
		return v, nil
	}
	return nil, nil
}

// InHostMountNamespace reports whether this process shares the mount namespace of process
// 1, so that its mounts are visible to the host. detail contains the compared values.
func (n *Node) InHostMountNamespace() (same bool, detail string, err error) {
	return n.inHostMountNamespace("self", "here")
}

// IsInHostMountNamespace is InHostMountNamespace for another process.
func (n *Node) IsInHostMountNamespace(pid int) (same bool, detail string, err error) {
	return n.inHostMountNamespace(strconv.Itoa(pid), fmt.Sprintf("in process %d", pid))
}

// Reading the link /proc/1/ns/mnt would need CAP_SYS_PTRACE. The mount table of process 1
// is readable without it, and mounts of two namespaces never have the same mount ID, so
// the IDs of "/" are compared (proc_pid_mountinfo(5)).
func (n *Node) inHostMountNamespace(of, where string) (same bool, detail string, err error) {
	ids := make([]int, 2)
	for i, process := range []string{"1", of} {
		path := n.kernel("/proc/" + process + "/mountinfo")
		if ids[i], err = rootMountID(path); err != nil {
			return false, "", fmt.Errorf("cannot determine the mount namespace: %s: %w", path, err)
		}
	}
	return ids[0] == ids[1], fmt.Sprintf("mount id of / is %d %s and %d in process 1", ids[1], where, ids[0]), nil
}

var errNoRootMount = errors.New("no mount at /")

// maxTable bounds a mount table that is read at start, in bytes.
const maxTable = 64 << 20

func rootMountID(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxTable))
	if err != nil {
		return 0, err
	}
	table, err := parseTable(data, func(at string) bool { return at == "/" })
	if err != nil {
		return 0, err
	}
	if m := visible(table, "/"); m != nil {
		return m.ID, nil
	}
	return 0, errNoRootMount
}

// follows reports whether the kernel unmounts m together with of: m is a copy of it in
// another mount namespace with mount propagation.
func (m Mount) follows(of Mount) bool {
	for _, p := range strings.Fields(of.Propagation) {
		if group, ok := strings.CutPrefix(p, "shared:"); ok {
			return slices.ContainsFunc(strings.Fields(m.Propagation), func(q string) bool { return q == p || q == "master:"+group })
		}
	}
	return false
}

// visible returns the mount in which a walk from / to path ends. The order of the table
// does not show which mounts are hidden (after mount --move, and since Linux 6.8 in
// general), so the walk follows the parent IDs.
func visible(table []Mount, path string) *Mount {
	known := make(map[int]bool, len(table))
	for _, m := range table {
		known[m.ID] = true
	}
	var cur *Mount
	enter := func(at string) bool {
		for i := range table {
			m := &table[i]
			if m.Mountpoint != at || m == cur {
				continue
			}
			// The parent of the first one is a mount that our root directory hides.
			if cur == nil && (!known[m.Parent] || m.Parent == m.ID) || cur != nil && m.Parent == cur.ID && m.ID != cur.ID {
				cur = m
				return true
			}
		}
		return false
	}
	left := len(table) // limits the walk if the table contains a cycle
	for _, at := range ancestors(path) {
		for ; left > 0 && enter(at); left-- {
		}
	}
	return cur
}

// ancestors returns the paths /, /a and /a/b for /a/b.
func ancestors(path string) []string {
	all := []string{"/"}
	for i := 1; i < len(path); i++ {
		if path[i] == '/' {
			all = append(all, path[:i])
		}
	}
	if path != "/" {
		all = append(all, path)
	}
	return all
}

// errUnstable is returned if the mount table changed during every read.
var errUnstable = errors.New("mount table kept changing while it was read")

// mounts reads the mount table and returns the mounts whose mount point want accepts. The
// kernel returns the table in pages and may change it in between, which poll reports;
// mounts then reads the table again.
func (n *Node) mounts(want func(mountpoint string) bool) ([]Mount, error) {
	path := n.kernel("/proc/self/mountinfo")
	for range 50 {
		data, stable, err := readTable(path)
		if err != nil {
			return nil, fmt.Errorf("cannot read the mount table: %w", err)
		}
		if stable {
			return parseTable(data, want)
		}
	}
	return nil, fmt.Errorf("%s: %w", path, errUnstable)
}

func readTable(path string) (data []byte, stable bool, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if data, err = io.ReadAll(f); err != nil {
		return nil, false, err
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, false, err
	}
	fds := []unix.PollFd{{Events: unix.POLLPRI}}
	var perr error
	if err := raw.Control(func(fd uintptr) {
		fds[0].Fd = int32(fd)
		_, perr = unix.Poll(fds, 0)
	}); err != nil {
		return nil, false, err
	}
	if perr == unix.EINTR {
		return data, false, nil
	}
	return data, fds[0].Revents&(unix.POLLPRI|unix.POLLERR) == 0, perr
}

func parseTable(data []byte, want func(string) bool) ([]Mount, error) {
	infos, err := mountinfo.GetMountsFromReader(bytes.NewReader(shorten(data, want)), func(i *mountinfo.Info) (skip, stop bool) {
		return !want(i.Mountpoint), false
	})
	if err != nil {
		return nil, fmt.Errorf("cannot parse the mount table: %w", err)
	}
	out := make([]Mount, len(infos))
	for i, m := range infos {
		out[i] = Mount{
			ID: m.ID, Parent: m.Parent, Major: m.Major, Minor: m.Minor, Root: m.Root, Mountpoint: m.Mountpoint,
			FSType: m.FSType, Source: m.Source, Propagation: m.Optional,
		}
	}
	return out, nil
}

// shorten drops the lines whose mount point want does not accept, usually most of a large
// table, to avoid the cost of parsing them.
func shorten(data []byte, want func(mountpoint string) bool) []byte {
	kept := data[:0]
	for line := range bytes.Lines(data) {
		rest, ok := line, true
		for range 4 {
			if _, rest, ok = bytes.Cut(rest, []byte(" ")); !ok {
				break
			}
		}
		point, _, ok := bytes.Cut(rest, []byte(" "))
		if !ok || bytes.IndexByte(point, '\\') >= 0 || want(string(point)) {
			kept = append(kept, line...) // also malformed lines, for which the parser returns an error
		}
	}
	return kept
}
