package node

import (
	"bytes"
	"cmp"
	"context"
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
	proc int // /proc
	buf  []byte
	big  bytes.Buffer
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
	slices.SortFunc(all, func(a, b candidate) int { return cmp.Compare(b.pid, a.pid) })
	s.own = &space{own: true, points: []string{s.m.Mountpoint}}
	if own, err := os.Readlink(s.n.kernel("/proc/self/ns/mnt")); err == nil {
		s.spaces[own] = s.own
	}
	workers := make([]*worker, min(4, runtime.NumCPU()))
	for i := range workers {
		workers[i] = &worker{search: s, proc: int(proc.Fd()), buf: make([]byte, 16<<10)}
	}
	all, err = share(ctx, workers, all, (*worker).links)
	if err == nil {
		_, err = share(ctx, workers, all, (*worker).maps)
	}
	for _, sp := range s.spaces {
		if !sp.own && sp.stays {
			workers[0].look(&candidate{pid: sp.first, space: sp}, func(w *worker, p *candidate) bool {
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
	wg.Wait()
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
	dir, err := unix.Openat(w.proc, strconv.Itoa(p.pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false // it ended
	}
	defer unix.Close(dir)
	p.dir = dir
	return pass(w, p)
}
