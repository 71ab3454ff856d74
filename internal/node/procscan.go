package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// candidate is one process during a search.
type candidate struct {
	pid int
	dir int // descriptor of its directory in /proc, while it is inspected
	ns  *mountNS
}

// worker is one of several workers of a search.
type worker struct {
	*search
	proc *os.File // /proc
	buf  []byte
	big  bytes.Buffer
	st   unix.Statx_t
	at   atomic.Int64 // the process, or -1-N for loop device N, for which a call may wait; otherwise 0
}

func (s *search) worker(proc *os.File) *worker {
	return &worker{search: s, proc: proc, buf: make([]byte, 16<<10)}
}

// processes runs the passes on every process, one pass after the other. A pass returns
// whether the next pass should inspect the process as well. own is our mount namespace.
func (s *search) processes(ctx context.Context, own *mountNS, passes ...func(*worker, *candidate) bool) error {
	proc, err := os.Open(s.n.kernel("/proc"))
	if err != nil {
		return err
	}
	// Not closed here, because a worker that waits for a dead server still uses it. Its
	// finalizer closes it when no worker refers to it.
	all := []candidate{{pid: s.only}}
	if s.only == 0 {
		if all, err = list(proc); err != nil {
			return err
		}
	}
	s.own = own
	if id, err := os.Readlink(s.n.kernel("/proc/self/ns/mnt")); err == nil {
		s.namespaces[id] = own
	}
	workers := make([]*worker, min(4, runtime.NumCPU()))
	for i := range workers {
		workers[i] = s.worker(proc)
	}
	if s.device {
		w := s.worker(proc)
		var wg sync.WaitGroup
		wg.Go(w.loops)
		if !s.n.await(ctx, &wg, []*worker{w}) {
			return context.Cause(ctx)
		}
	}
	for _, pass := range passes {
		if all, err = share(ctx, workers, all, pass); err != nil {
			break
		}
	}
	s.mu.Lock()
	found := slices.Collect(maps.Values(s.namespaces))
	s.mu.Unlock()
	w := s.worker(proc)
	for _, ns := range found {
		if !ns.own && ns.outlives {
			w.look(&candidate{pid: ns.first, ns: ns}, func(w *worker, p *candidate) bool {
				w.report(p, "other namespace", ns.points[0])
				return false
			})
		}
	}
	return err
}

// list returns all processes, those with high pids first.
func list(proc *os.File) (all []candidate, err error) {
	entries, err := proc.Readdirnames(-1)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e); err == nil && pid > 0 {
			all = append(all, candidate{pid: pid})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.pid, a.pid) })
	return all, err
}

// share runs pass on all processes, in order and distributed over the workers, and
// returns those that a later pass should inspect.
func share(ctx context.Context, workers []*worker, all []candidate, pass func(*worker, *candidate) bool) ([]candidate, error) {
	var next atomic.Int64
	var wg sync.WaitGroup
	keep := make([]bool, len(all))
	for _, w := range workers {
		wg.Go(func() {
			for ctx.Err() == nil && !w.full() {
				i := int(next.Add(1)) - 1
				if i >= len(all) {
					return
				}
				keep[i] = w.look(&all[i], pass)
			}
		})
	}
	if !workers[0].n.await(ctx, &wg, workers) {
		return nil, context.Cause(ctx)
	}
	kept := all[:0]
	for i, k := range keep {
		if k {
			kept = append(kept, all[i])
		}
	}
	return kept, context.Cause(ctx)
}

// look runs one pass on p and returns whether a later one should inspect it.
func (w *worker) look(p *candidate, pass func(*worker, *candidate) bool) bool {
	dir, err := unix.Openat(int(w.proc.Fd()), strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it has exited
	}
	defer unix.Close(dir)
	p.dir = dir
	return pass(w, p)
}

// namespaceOf returns the mount namespace of p.
func (w *worker) namespaceOf(p *candidate) *mountNS {
	id := w.link(p.dir, "ns/mnt")
	if id == "" {
		return w.own // a zombie, or a tree without namespaces
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if ns := w.namespaces[id]; ns != nil {
		ns.first = min(ns.first, p.pid)
		return ns
	}
	ns := &mountNS{first: p.pid, id: strings.TrimSuffix(strings.TrimPrefix(id, "mnt:["), "]")}
	data, err := w.read(p.dir, "mountinfo")
	if err != nil {
		return ns // it has exited: the next process of this namespace is used
	}
	table, err := parseTable(data, func(string) bool { return true })
	if err != nil {
		return ns
	}
	w.namespaces[id] = ns
	if w.device {
		ns.keep(table, w.m.Device(), w.root)
		return ns
	}
	for _, m := range table {
		if m.Major == w.m.Major && m.Minor == w.m.Minor && safepath.Within(m.Root, w.m.Root) && (!w.exact || m.follows(w.m)) {
			ns.points, ns.ids = append(ns.points, m.Mountpoint), append(ns.ids, m.ID)
			ns.outlives = ns.outlives || !m.follows(w.m)
		}
	}
	if w.exact {
		ns.exclude(table)
	}
	return ns
}

// enter starts the inspection of a process. It returns the path of its executable, or ""
// for a kernel thread or a zombie, which has no open and no mapped files.
func (w *worker) enter(p *candidate) (exe string) {
	exe, err := w.readlink(p.dir, "exe")
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		w.denied.Add(1)
	}
	if exe == "" {
		return ""
	}
	w.seen.Add(1)
	p.ns = w.namespaceOf(p)
	return exe
}

// links checks the working directory, root, executable and open files of a process. It
// returns whether its mappings should be checked as well.
func (w *worker) links(p *candidate) bool {
	exe := w.enter(p)
	if exe == "" {
		return false
	}
	for _, kind := range []string{"cwd", "root", "exe"} {
		to := exe
		if kind != "exe" {
			to = w.link(p.dir, kind)
		}
		if p.ns.has(to) {
			w.report(p, kind, to)
			return false
		}
	}
	return w.descriptors(p, func(fds int, fd string) bool {
		to := w.link(fds, fd)
		if p.ns.has(to) && (!w.exact || w.through(p, fd, p.ns.ids...)) ||
			!p.ns.own && safepath.Within(to, w.m.Mountpoint) && w.through(p, fd, w.m.ID) {
			w.report(p, "fd", to)
			return true
		}
		return false
	})
}

// descriptors calls match for each open descriptor of p until match returns true. It
// returns false if match returned true.
func (w *worker) descriptors(p *candidate, match func(fds int, fd string) bool) bool {
	fds, err := unix.Openat(p.dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fds)
	for {
		n, err := unix.Getdents(fds, w.buf[8<<10:])
		if n <= 0 || err != nil {
			return true
		}
		_, _, numbers := unix.ParseDirent(w.buf[8<<10:8<<10+n], -1, nil)
		for _, fd := range numbers {
			if match(fds, fd) {
				return false
			}
		}
	}
}

// through reports whether the descriptor fd was opened through one of the mounts with
// these IDs. A process of another namespace may have inherited a descriptor of our mount.
func (w *worker) through(p *candidate, fd string, mounts ...int) bool {
	info, err := w.read(p.dir, "fdinfo/"+fd)
	if err != nil {
		return false
	}
	id, err := parseMountID(string(info))
	return err == nil && slices.Contains(mounts, id)
}

// maps checks whether p has mapped a file of our file system. It is the last pass, so it
// returns false.
func (w *worker) maps(p *candidate) bool {
	if len(p.ns.points) == 0 && !w.device {
		return false
	}
	if w.waits(int64(p.pid)) {
		return false
	}
	w.at.Store(int64(p.pid)) // the kernel takes the lock of the address space
	data, err := w.read(p.dir, "maps")
	w.at.Store(0)
	if err != nil {
		return false
	}
	dev := []byte(fmt.Sprintf(" %02x:%02x ", w.m.Major, w.m.Minor))
	for {
		i := bytes.Index(data, dev)
		if i < 0 {
			return false
		}
		line, rest, _ := bytes.Cut(data[i:], []byte("\n"))
		data = rest
		if at := bytes.IndexByte(line, '/'); at >= 0 && (w.device || p.ns.has(string(line[at:]))) {
			w.report(p, "mmap", string(line[at:]))
			return false
		}
	}
}

func (w *worker) report(p *candidate, kind, path string) {
	h := Holder{PID: p.pid, Kind: kind, Path: printable(strings.TrimSuffix(path, " (deleted)"))}
	if p.ns != nil && !p.ns.own {
		h.Namespace = printable(p.ns.id)
	}
	if b, err := w.read(p.dir, "cgroup"); err == nil {
		h.Unit = printable(unitOf(string(b)))
	}
	if b, err := w.read(p.dir, "comm"); err == nil {
		h.Command = printable(strings.TrimSuffix(string(b), "\n"))
	}
	if b, err := w.read(p.dir, "status"); err == nil {
		if uids := status(b).users(); len(uids) > 0 {
			h.UID = uids[0]
		}
	}
	if b, err := w.read(p.dir, "stat"); err == nil {
		if f, ok := parseStat(b); ok {
			h.Start = f[statStart]
		}
	}
	w.add(h)
}

// link returns the target of a symlink below dir, or "" if it cannot be read.
func (w *worker) link(dir int, name string) string {
	to, _ := w.readlink(dir, name)
	return to
}

func (w *worker) readlink(dir int, name string) (string, error) {
	n, err := unix.Readlinkat(dir, name, w.buf[:8<<10])
	if err != nil || n <= 0 {
		return "", err
	}
	return string(w.buf[:n]), nil
}

// maxRead bounds a file of a process, in bytes. A process may have very many mappings.
const maxRead = 64 << 20

// read reads a file below dir. The bytes are valid until the next read.
func (w *worker) read(dir int, name string) ([]byte, error) { return w.readMost(dir, name, maxRead) }

func (w *worker) readMost(dir int, name string, most int) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	w.big.Reset()
	for w.big.Len() < most {
		w.big.Grow(64 << 10)
		free := w.big.AvailableBuffer()
		n, err := unix.Read(fd, free[:cap(free)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return w.big.Bytes(), nil
		}
		w.big.Write(free[:n])
	}
	return nil, errors.New("too long: " + name)
}
