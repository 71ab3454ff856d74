package node

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
)

// Holder is one reason why a mount is busy. Command and Path come from local users:
// unprintable characters are replaced, nothing else is to be believed.
type Holder struct {
	PID     int // 0 when no process is the reason
	UID     uint32
	Command string // the process's short name
	Kind    string // cwd, root, exe, fd, mmap, mount, other namespace, loop or swap
	Path    string // what is held, as the process sees it; the mount point for the two kinds of mounts
}

func (h Holder) String() string {
	if h.PID == 0 {
		return fmt.Sprintf("%s %s", h.Kind, h.Path)
	}
	return fmt.Sprintf("pid %d (%s, uid %d): %s %s", h.PID, h.Command, h.UID, h.Kind, h.Path)
}

// Holders returns who keeps m busy, at most limit of them (0 means all), the mounts
// below it first, then processes by number, one reason each. It reads only /proc and
// /sys, never the mount itself. When ctx ends it returns what it found so far together
// with ctx's error; so young processes are searched first, since those that came with
// the job are the likely ones, and mappings last, since they cost the most.
//
// Another mount namespace that has the same file system is reported once, by its
// first process: it does not hinder umount, but keeps the device open afterwards.
// One whose mount goes with ours, as that of a service of systemd, is not.
//
// To find nobody, when most processes may not be looked at, is an error.
func (n *Node) Holders(ctx context.Context, m Mount, limit int) ([]Holder, error) {
	table, err := n.MountsBelow(m.Mountpoint)
	if err != nil {
		return nil, err
	}
	s := &search{n: n, m: m, limit: limit, spaces: map[string]*space{}}
	for _, b := range table {
		s.add(Holder{Kind: "mount", Path: printable(b.Mountpoint)})
	}
	s.files()
	err = s.processes(ctx)
	slices.SortStableFunc(s.found, func(a, b Holder) int { return cmp.Compare(a.PID, b.PID) })
	if err != nil {
		return s.found, fmt.Errorf("looking for who uses %s: %w", m.Mountpoint, err)
	}
	if n := s.denied.Load(); n > s.seen.Load() && len(s.found) == 0 {
		return nil, fmt.Errorf("%d processes may not be looked at, which takes CAP_SYS_PTRACE: try fuser -vm %s", n, m.Mountpoint)
	}
	return s.found, nil
}

// search is what the workers of one search share.
type search struct {
	n     *Node
	m     Mount
	limit int
	own   *space

	seen, denied atomic.Int64 // processes that may be looked at, and those that may not

	mu     sync.Mutex
	found  []Holder
	spaces map[string]*space // by the text of the link ns/mnt
}

// space is a mount namespace.
type space struct {
	own    bool
	points []string // where it has our file system
	stays  bool     // also when ours is unmounted
	first  int      // its process with the lowest number
}

func (s *search) add(h Holder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit <= 0 || len(s.found) < s.limit {
		s.found = append(s.found, h)
	}
}

func (s *search) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.limit > 0 && len(s.found) >= s.limit
}

// files looks for the kernel's own uses: loop devices and swap files.
func (s *search) files() {
	block := s.n.kernel("/sys/block")
	for _, name := range names(block, nil) {
		if !strings.HasPrefix(name, "loop") {
			continue
		}
		if p := attribute(block, name, "loop/backing_file"); within(p, s.m.Mountpoint) {
			s.add(Holder{Kind: "loop", Path: printable(p)})
		}
	}
	swaps, err := os.ReadFile(s.n.kernel("/proc/swaps"))
	if err != nil {
		return
	}
	for line := range strings.Lines(string(swaps)) {
		if p, _, _ := strings.Cut(line, " "); within(p, s.m.Mountpoint) {
			s.add(Holder{Kind: "swap", Path: printable(p)})
		}
	}
}

// printable makes a text of local users safe to show.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}
