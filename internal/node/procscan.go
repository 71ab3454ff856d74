package node

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// candidate is one process during a search.
type candidate struct {
	pid   int
	dir   int // its directory in /proc, while it is looked at
	space *space
}

// processes looks at every process: first at what is cheap to see, then, at those
// that have no match yet, for mappings.
func (s *search) processes(ctx context.Context) error {
	proc, err := os.Open(s.n.kernel("/proc"))
	if err != nil {
		return err
	}
	defer proc.Close()
	entries, err := proc.Readdirnames(-1)
	if err != nil {
		return err
	}
	var all []candidate
	for _, e := range entries {
		if pid, err := strconv.Atoi(e); err == nil && pid > 0 {
			all = append(all, candidate{pid: pid})
		}
	}
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(a.pid, b.pid) })
	s.buf = make([]byte, 16<<10)
	s.own = &space{own: true, points: []string{s.m.Mountpoint}}
	if own, err := os.Readlink(s.n.kernel("/proc/self/ns/mnt")); err == nil {
		s.spaces[own] = s.own
	}
	defer func() {
		slices.SortStableFunc(s.found, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	}()
	for _, pass := range []func(*candidate) bool{s.links, s.maps} {
		kept := all[:0]
		for i := range all {
			if s.full() {
				return nil
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if s.look(int(proc.Fd()), &all[i], pass) {
				kept = append(kept, all[i])
			}
		}
		all = kept
	}
	return nil
}

// look runs one pass on p and returns whether a later one should look at it.
func (s *search) look(proc int, p *candidate, pass func(*candidate) bool) bool {
	dir, err := unix.Openat(proc, strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it ended
	}
	defer unix.Close(dir)
	p.dir = dir
	if p.space == nil {
		p.space = s.spaceOf(p)
	}
	return pass(p)
}

// spaceOf returns the mount namespace of p, and reports a foreign one that has our
// file system when it is met for the first time.
func (s *search) spaceOf(p *candidate) *space {
	id := s.link(p.dir, "ns/mnt")
	if id == "" {
		return s.own // a zombie, or a tree without namespaces
	}
	if sp := s.spaces[id]; sp != nil {
		return sp
	}
	sp := &space{}
	s.spaces[id] = sp
	data, err := s.read(p.dir, "mountinfo")
	if err != nil {
		return sp
	}
	table, err := parseTable(data, func(string) bool { return true })
	if err != nil {
		return sp
	}
	for _, m := range table {
		if m.Major == s.m.Major && m.Minor == s.m.Minor && within(m.Root, s.m.Root) {
			sp.points = append(sp.points, m.Mountpoint)
		}
	}
	if len(sp.points) > 0 {
		s.report(p, "other namespace", sp.points[0])
	}
	return sp
}

// links looks at where the process stands, what it runs and has open. It returns
// whether its mappings are still of interest.
func (s *search) links(p *candidate) bool {
	for _, kind := range []string{"cwd", "root", "exe"} {
		to := s.link(p.dir, kind)
		if kind == "exe" && to == "" {
			return false // a thread of the kernel, or a zombie: nothing open, nothing mapped
		}
		if s.ours(p.space, to) {
			s.report(p, kind, to)
			return false
		}
	}
	fds, err := unix.Openat(p.dir, "fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fds)
	for {
		n, err := unix.Getdents(fds, s.buf[8<<10:])
		if n <= 0 || err != nil {
			return true
		}
		_, _, numbers := unix.ParseDirent(s.buf[8<<10:8<<10+n], -1, nil)
		for _, fd := range numbers {
			to := s.link(fds, fd)
			if s.ours(p.space, to) || !p.space.own && within(to, s.m.Mountpoint) && s.inherited(p, fd) {
				s.report(p, "fd", to)
				return false
			}
		}
	}
}

// inherited tells whether a process of another namespace has the descriptor fd open
// through our mount.
func (s *search) inherited(p *candidate, fd string) bool {
	info, err := s.read(p.dir, "fdinfo/"+fd)
	if err != nil {
		return false
	}
	id, err := parseMountID(string(info))
	return err == nil && id == s.m.ID
}

// maps looks for a mapped file of our file system. It ends a search, so it returns false.
func (s *search) maps(p *candidate) bool {
	if len(p.space.points) == 0 {
		return false
	}
	data, err := s.read(p.dir, "maps")
	if err != nil {
		return false
	}
	dev := []byte(fmt.Sprintf(" %02x:%02x ", s.m.Major, s.m.Minor))
	for {
		i := bytes.Index(data, dev)
		if i < 0 {
			return false
		}
		line, rest, _ := bytes.Cut(data[i:], []byte("\n"))
		data = rest
		if at := bytes.IndexByte(line, '/'); at >= 0 && s.ours(p.space, string(line[at:])) {
			s.report(p, "mmap", string(line[at:]))
			return false
		}
	}
}

// ours tells whether path, as a process of sp sees it, lies on our mount.
func (s *search) ours(sp *space, path string) bool {
	return slices.ContainsFunc(sp.points, func(point string) bool { return within(path, point) })
}

func (s *search) report(p *candidate, kind, path string) {
	h := Holder{PID: p.pid, Kind: kind, Path: printable(strings.TrimSuffix(path, " (deleted)"))}
	if b, err := s.read(p.dir, "comm"); err == nil {
		h.Command = printable(strings.TrimSuffix(string(b), "\n"))
	}
	if b, err := s.read(p.dir, "status"); err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "Uid:" {
				uid, _ := strconv.ParseUint(f[1], 10, 32)
				h.UID = uint32(uid)
			}
		}
	}
	s.add(h)
}

// link reads a symlink below dir, "" when it cannot.
func (s *search) link(dir int, name string) string {
	n, err := unix.Readlinkat(dir, name, s.buf[:8<<10])
	if err != nil || n <= 0 {
		return ""
	}
	return string(s.buf[:n])
}

// read reads a file below dir. The bytes are valid until the next read.
func (s *search) read(dir int, name string) ([]byte, error) {
	fd, err := unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	const most = 64 << 20 // a process may have very many mappings
	s.big.Reset()
	for s.big.Len() < most {
		s.big.Grow(64 << 10)
		room := s.big.AvailableBuffer()
		n, err := unix.Read(fd, room[:cap(room)])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return s.big.Bytes(), nil
		}
		s.big.Write(room[:n])
	}
	return nil, errors.New("too long: " + name)
}
