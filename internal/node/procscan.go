package node

import (
	"bytes"
	"cmp"
	"context"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// candidate is one process during a search.
type candidate struct {
	pid   int
	dir   int // its directory in /proc, while it is looked at
	space *space
}

// worker is one of several that share a search.
type worker struct {
	*search
	proc *os.File // /proc
	buf  []byte
	big  bytes.Buffer
	st   unix.Statx_t
	at   atomic.Int64 // the process, or -1-N for loop device N, that a call may wait for; else 0
}

func (s *search) worker(proc *os.File) *worker {
	return &worker{search: s, proc: proc, buf: make([]byte, 16<<10)}
}

// processes looks at every process with one pass after the other: first at what is
// cheap to see, then, at those that have no match yet, for mappings. Our own mount
// namespace is own.
func (s *search) processes(ctx context.Context, own *space, passes ...func(*worker, *candidate) bool) error {
	proc, err := os.Open(s.n.kernel("/proc"))
	if err != nil {
		return err
	}
	// Not closed here: a worker that waits for a dead server still uses it. It is closed
	// when no worker has it any more.
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
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.pid, a.pid) })
	s.own = own
	if id, err := os.Readlink(s.n.kernel("/proc/self/ns/mnt")); err == nil {
		s.spaces[id] = own
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
	spaces := slices.Collect(maps.Values(s.spaces))
	s.mu.Unlock()
	w := s.worker(proc)
	for _, sp := range spaces {
		if !sp.own && sp.stays {
			w.look(&candidate{pid: sp.first, space: sp}, func(w *worker, p *candidate) bool {
				w.report(p, "other namespace", sp.points[0])
				return false
			})
		}
	}
	return err
}

// share lets the workers run pass on all, in order, and returns those that a later
// pass should look at.
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

// look runs one pass on p and returns whether a later one should look at it.
func (w *worker) look(p *candidate, pass func(*worker, *candidate) bool) bool {
	dir, err := unix.Openat(int(w.proc.Fd()), strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it ended
	}
	defer unix.Close(dir)
	p.dir = dir
	return pass(w, p)
}
