package fleet

import (
	"testing"
	"time"
)

// Many at once is what one does over a network; how much it wins is printed.
// What counts is that neither way leaves another system behind.
func TestParallelAndSequential(t *testing.T) {
	f := New(t, 8)
	older, newer := f.Releases()
	f.Distribution(f.Nodes...)
	for _, n := range f.Nodes {
		f.Set(n, Faults{Rate: 4 << 20, Latency: 5 * time.Millisecond})
	}
	var took []time.Duration
	for _, way := range []struct {
		release  *Release
		parallel string
	}{{older, "1"}, {newer, "8"}} {
		r := f.Deploy("install", append(way.release.PackageArguments(), "--parallel", way.parallel)...)
		if r.Code != 0 {
			t.Fatalf("--parallel %s: %+v", way.parallel, r)
		}
		took = append(took, r.Took)
		for _, n := range f.Nodes {
			healthy(t, f, n, way.release)
		}
	}
	t.Logf("eight nodes, lines of 4 MB/s and 5 ms: one after another %.1f s, eight at once %.1f s", took[0].Seconds(), took[1].Seconds())
}
