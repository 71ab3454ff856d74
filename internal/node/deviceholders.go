package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// DeviceHolders returns what keeps the block device d open, at most limit holders (0
// means all): mounts of it in any mount namespace, loop devices, swap and block devices
// on top, and processes that have it open or use a file of a file system on it. The latter
// keep the device open even if no mount table shows the file system: after umount
// -l, or after the mount point was removed, which makes the kernel drop the mount from
// other namespaces.
//
// The order, the time limit and the errors are those of Holders. Files are compared by
// device number, which the kernel knows without access to the file system. Files on a
// network file system are skipped. If a call still waits for a dead server, ctx
// ends the search, and later searches skip that process until the server responds.
func (n *Node) DeviceHolders(ctx context.Context, d Device, limit int) ([]Holder, error) {
	table, err := n.mounts(func(string) bool { return true })
	if err != nil {
		return nil, err
	}
	s := &search{
		n: n, m: Mount{Major: int(d.Major), Minor: int(d.Minor), Root: "/"}, device: true,
		limit: limit, namespaces: map[string]*mountNS{}, waiting: n.waitingNow(),
	}
	if root := visible(table, "/"); root != nil {
		s.root = root.Device()
	}
	own := &mountNS{own: true}
	own.keep(table, d, s.root)
	for _, point := range own.points {
		s.add(Holder{Kind: "mounted", Path: printable(point)})
	}
	s.stacked(d)
	s.swaps(func(path string) bool { return s.is(path, d) || own.has(path) })
	if err := s.processes(ctx, own, (*worker).onDevice, (*worker).maps); err != nil {
		return s.sorted(), fmt.Errorf("looking for users of device %v: %w", d, err)
	}
	if n := s.mostDenied(); n > 0 {
		return nil, fmt.Errorf("cannot inspect %d processes without CAP_SYS_PTRACE: try fuser -v on the device %v", n, d)
	}
	if n := s.skipped.Load(); n > 0 && len(s.sorted()) == 0 {
		return nil, fmt.Errorf("%d processes or loop devices were skipped because inspecting them waits for a server that does not respond: try fuser -v on the device %v", n, d)
	}
	return s.sorted(), nil
}

// stacked adds block devices on top of d.
func (s *search) stacked(d Device) {
	for _, name := range names(s.n.kernel(fmt.Sprintf("/sys/dev/block/%v/holders", d)), nil) {
		s.add(Holder{Kind: "stacked", Device: printable(name), Path: printable(attribute(s.n.kernel("/sys/block"), name, "dm/name"))})
	}
}

// is reports whether path is a device node of d.
func (s *search) is(path string, d Device) bool {
	if !safepath.Within(path, "/dev") {
		return false
	}
	at, err := s.n.BlockDevice(path)
	return err == nil && at == d
}

// loops adds loop devices whose backing file is the device or on a file system on it.
func (w *worker) loops() {
	block := w.n.kernel("/sys/block")
	d := w.m.Device()
	for _, name := range names(block, nil) {
		index, err := strconv.Atoi(strings.TrimPrefix(name, "loop"))
		if err != nil || !strings.HasPrefix(name, "loop") {
			continue
		}
		p := attribute(block, name, "loop/backing_file")
		if p == "" {
			continue
		}
		if w.is(p, d) || w.own.has(p) || !w.own.remote(p) && w.backs(d, name, -1-int64(index)) {
			w.add(Holder{Kind: "loop", Device: printable(name), Path: printable(strings.TrimSuffix(p, " (deleted)"))})
		}
	}
}

// backs reports whether the backing file of the loop device name is d or on d. It asks
// the kernel, because the path of a file is not reliable if its file system was detached.
func (w *worker) backs(d Device, name string, key int64) bool {
	if w.waits(key) {
		return false
	}
	w.at.Store(key)
	defer w.at.Store(0)
	fd, err := unix.Open(w.n.kernel("/dev/"+name), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	info, err := unix.IoctlLoopGetStatus64(fd)
	if err != nil {
		return false
	}
	number := func(dev uint64) Device { return Device{unix.Major(dev), unix.Minor(dev)} }
	return number(info.Device) == d || number(info.Rdevice) == d
}

// onDevice is links for the search by device number.
func (w *worker) onDevice(p *candidate) bool {
	exe := w.enter(p)
	if exe == "" || w.waits(int64(p.pid)) {
		return false
	}
	for _, kind := range []string{"cwd", "root", "exe"} {
		to := exe
		if kind != "exe" {
			to = w.link(p.dir, kind)
		}
		if st := w.stat(p, p.dir, kind, to); st != nil && w.on(st) {
			w.report(p, kind, to)
			return false
		}
	}
	return w.descriptors(p, func(fds int, fd string) bool {
		to := w.link(fds, fd)
		st := w.stat(p, fds, fd, to)
		switch {
		case st == nil:
			return false
		case w.on(st):
			w.report(p, "fd", to)
		case st.Mode&unix.S_IFMT == unix.S_IFBLK && (Device{st.Rdev_major, st.Rdev_minor}) == w.m.Device():
			w.report(p, "device", to)
		default:
			return false
		}
		return true
	})
}

// on reports whether a file is on the device.
func (w *worker) on(st *unix.Statx_t) bool {
	return (Device{st.Dev_major, st.Dev_minor}) == w.m.Device()
}

// stat returns the attributes of the file to which the link name in dir leads; to is the
// text of the link. It returns nil if that is not a file, or if it may be on a server that
// does not respond.
func (w *worker) stat(p *candidate, dir int, name, to string) *unix.Statx_t {
	if !strings.HasPrefix(to, "/") || to == "/dev/null" || p.ns.remote(to) {
		return nil
	}
	w.at.Store(int64(p.pid))
	defer w.at.Store(0)
	statx := w.n.statx
	if statx == nil {
		// A link of /proc leads to the inode without a path walk, and AT_STATX_DONT_SYNC
		// returns cached attributes. NFS may still contact its server (it revalidates the
		// end of the path), which is why await exists.
		statx = func(dir int, name string, st *unix.Statx_t) error {
			return unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, st)
		}
	}
	if err := statx(dir, name, &w.st); err != nil {
		return nil
	}
	return &w.st
}

// keep stores what a search for the device d needs from the mount table of a namespace.
// root is the device of our own root file system.
func (ns *mountNS) keep(table []Mount, d, root Device) {
	for _, m := range table {
		if m.Device() == d {
			ns.points = append(ns.points, m.Mountpoint)
			ns.outlives = true
		}
		if m.mayWait() && m.Device() != root {
			ns.remotes = append(ns.remotes, m.Mountpoint)
		}
	}
	for _, m := range table {
		if slices.ContainsFunc(ns.remotes, func(remote string) bool { return safepath.Within(m.Mountpoint, remote) }) {
			ns.below = append(ns.below, m.Mountpoint)
		}
	}
}

// has reports whether path, as a process of ns sees it, is on the file system to search
// for.
func (ns *mountNS) has(path string) bool {
	within := func(point string) bool { return safepath.Within(path, point) }
	return slices.ContainsFunc(ns.points, within) && !slices.ContainsFunc(ns.excluded, within)
}

// remote reports whether path is on a file system that may wait for a server.
func (ns *mountNS) remote(path string) bool {
	for _, remote := range ns.remotes {
		local := func(point string) bool { // another file system is mounted in between
			return len(point) > len(remote) && safepath.Within(path, point) && !slices.Contains(ns.remotes, point)
		}
		if safepath.Within(path, remote) && !slices.ContainsFunc(ns.below, local) {
			return true
		}
	}
	return false
}

// mayWait reports whether the file system may wait for a server or a process. File
// systems on block devices do not.
func (m Mount) mayWait() bool { return m.Major == 0 && !slices.Contains(localTypes, m.FSType) }

// localTypes are the file systems without a block device that need no server, and those
// on block devices that have anonymous device numbers.
var localTypes = []string{
	"tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay", "proc", "sysfs", "devpts", "mqueue", "hugetlbfs",
	"cgroup", "cgroup2", "bpf", "btrfs", "zfs", "nsfs",
}

// waitingNow returns the processes and loop devices for which earlier searches still wait.
func (n *Node) waitingNow() map[int64]bool {
	shared := n.shared()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return maps.Clone(shared.waiting)
}

// maxWaiting bounds the number of threads that wait for dead servers.
const maxWaiting = 4

// waits reports whether to skip the process or loop device key, because inspecting it is
// known to wait for a server or too many threads wait already. It counts those that are
// skipped.
func (w *worker) waits(key int64) bool {
	if w.waiting[key] || len(w.waiting) >= maxWaiting {
		w.skipped.Add(1)
		return true
	}
	return false
}

// await returns true when the workers have finished. It returns false if ctx has ended
// and a worker waits inside the kernel. Nothing can interrupt that wait, so the thread is
// abandoned, and Node.waiting lists what it waits for until it returns, so that no later
// search waits for the same.
func (n *Node) await(ctx context.Context, wg *sync.WaitGroup, workers []*worker) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-ctx.Done():
	}
	for {
		t := time.NewTimer(awaitGrace)
		select {
		case <-done:
			t.Stop()
			return true
		case <-t.C:
		}
		var stuck []int64
		for _, w := range workers {
			if at := w.at.Load(); at != 0 {
				stuck = append(stuck, at)
			}
		}
		if len(stuck) == 0 {
			continue // it is about to return
		}
		shared := n.shared()
		shared.mu.Lock()
		if shared.waiting == nil {
			shared.waiting = map[int64]bool{}
		}
		for _, at := range stuck {
			shared.waiting[at] = true
		}
		shared.mu.Unlock()
		go func() {
			<-done
			shared.mu.Lock()
			defer shared.mu.Unlock()
			for _, at := range stuck {
				delete(shared.waiting, at)
			}
		}()
		return false
	}
}

// awaitGrace is how long a worker may take to detect the end of ctx.
const awaitGrace = 20 * time.Millisecond
