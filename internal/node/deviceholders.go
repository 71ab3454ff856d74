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

// DeviceHolders returns what keeps the block device d open, at most limit of them (0
// means all): mounts of it in any mount namespace, loop devices, swap and block devices
// on top, and processes that have it open, or that use a file of a file system on it.
// The last holds the device even if no table shows the file system any more: after
// umount -l, or after the mount point was removed, which makes the kernel drop the mount
// from other namespaces.
//
// The order, the time limit and the errors are those of Holders. Files are compared by
// device number, which the kernel knows without asking the file system. What lies on a
// network file system is left out; if a look nevertheless waits for a dead server, ctx
// ends the search, and later ones leave that process out until the server answers.
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
		return nil, fmt.Errorf("%d processes may not be looked at, which takes CAP_SYS_PTRACE: try fuser -v on the device %v", n, d)
	}
	if n := s.skipped.Load(); n > 0 && len(s.sorted()) == 0 {
		return nil, fmt.Errorf("%d processes or loop devices were left out, because a look at them waits for a server that does not answer: try fuser -v on the device %v", n, d)
	}
	return s.sorted(), nil
}

// stacked looks for block devices on top of d.
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

// loops looks for loop devices on the device or on a file of a file system on it.
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

// backs asks the loop device name whether its file is d or lies on it: the path of a
// file whose file system was detached says nothing.
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

// on reports whether a file lies on the device.
func (w *worker) on(st *unix.Statx_t) bool {
	return (Device{st.Dev_major, st.Dev_minor}) == w.m.Device()
}

// stat looks at the file that the link name in dir leads to; to is the text of the link.
// It returns nil if that is not a file, or may be on a server that does not answer.
func (w *worker) stat(p *candidate, dir int, name, to string) *unix.Statx_t {
	if !strings.HasPrefix(to, "/") || to == "/dev/null" || p.ns.remote(to) {
		return nil
	}
	w.at.Store(int64(p.pid))
	defer w.at.Store(0)
	statx := w.n.statx
	if statx == nil {
		// A link of /proc leads to the inode without a path walk, and AT_STATX_DONT_SYNC
		// asks only for what the kernel knows. NFS may still ask its server (it revalidates
		// the end of the path), which is why await exists.
		statx = func(dir int, name string, st *unix.Statx_t) error {
			return unix.Statx(dir, name, unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_TYPE, st)
		}
	}
	if err := statx(dir, name, &w.st); err != nil {
		return nil
	}
	return &w.st
}

// keep takes from the mount table of a namespace what a search for the device d needs.
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

// has reports whether path, as a process of ns sees it, lies on the file system that is
// looked for.
func (ns *mountNS) has(path string) bool {
	return slices.ContainsFunc(ns.points, func(point string) bool { return safepath.Within(path, point) })
}

// remote reports whether path lies on a file system that may wait for a server.
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

// mayWait reports whether the file system may have to ask a server or a process. File
// systems on block devices do not.
func (m Mount) mayWait() bool { return m.Major == 0 && !slices.Contains(localTypes, m.FSType) }

// localTypes are the file systems without a block device that the kernel provides by
// itself, and those with a device number of their own although they are on block devices.
var localTypes = []string{
	"tmpfs", "ramfs", "rootfs", "devtmpfs", "overlay", "proc", "sysfs", "devpts", "mqueue", "hugetlbfs",
	"cgroup", "cgroup2", "bpf", "btrfs", "zfs", "nsfs",
}

// waitingNow returns what earlier searches still wait for.
func (n *Node) waitingNow() map[int64]bool {
	shared := n.shared()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	return maps.Clone(shared.waiting)
}

// maxWaiting bounds the threads that wait for dead servers.
const maxWaiting = 4

// waits reports whether a look at the process or loop device key is known to wait for a
// server. It counts those that are left out for that reason.
func (w *worker) waits(key int64) bool {
	if w.waiting[key] || len(w.waiting) >= maxWaiting {
		w.skipped.Add(1)
		return true
	}
	return false
}

// await returns true when the workers have ended. It returns false when ctx has ended
// and a worker waits inside the kernel. Nothing can end that wait, so the thread is left
// behind, and what it waits for is remembered until it returns: no later search waits
// for the same.
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
			continue // on its way out
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

// awaitGrace is how long a worker may take to notice that time is up.
const awaitGrace = 20 * time.Millisecond
