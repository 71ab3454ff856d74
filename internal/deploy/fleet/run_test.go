package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// simulated is a fleet of which each node takes its time, and some have a fault.
type simulated struct {
	mu      sync.Mutex
	takes   func(i int) time.Duration
	fails   func(i int) bool
	number  map[string]int
	running int
	most    int
	begun   []string
	ended   map[string]time.Time
}

func newSimulated(nodes int, takes time.Duration) (*simulated, []string) {
	s := &simulated{number: map[string]int{}, ended: map[string]time.Time{}}
	s.takes = func(int) time.Duration { return takes }
	s.fails = func(int) bool { return false }
	var names []string
	for i := range nodes {
		name := fmt.Sprintf("compute-%03d", i+1)
		s.number[name] = i
		names = append(names, name)
	}
	return s, names
}

func (s *simulated) task(ctx, stop context.Context, node string, step func(string)) Result {
	i := s.number[node]
	s.mu.Lock()
	s.running++
	s.most = max(s.most, s.running)
	s.begun = append(s.begun, node)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.ended[node] = time.Now()
		s.mu.Unlock()
	}()
	half := s.takes(i) / 2
	step("look")
	select {
	case <-time.After(half):
	case <-stop.Done():
		return Result{State: Interrupted, Cause: "nothing was changed"}
	}
	step("switch")
	select {
	case <-time.After(half):
	case <-ctx.Done():
		return Result{State: Failed, Cause: "left"}
	}
	if s.fails(i) {
		return Result{State: Failed, Cause: "not reachable", Hint: "is the node up?"}
	}
	return Result{State: OK, Changes: []string{"write /x"}}
}

// recorder is an observer; it must never be called twice at once.
type recorder struct {
	inside bool
	ended  []string
	steps  int
}

func (r *recorder) enter() {
	if r.inside {
		panic("two at once")
	}
	r.inside = true
}
func (r *recorder) Begin(string)        { r.enter(); r.inside = false }
func (r *recorder) Step(string, string) { r.enter(); r.steps++; r.inside = false }
func (r *recorder) End(res Result)      { r.enter(); r.ended = append(r.ended, res.Node); r.inside = false }

func names(results []Result) (list []string) {
	for _, r := range results {
		list = append(list, r.Node)
	}
	return list
}

// 200 nodes of 8 seconds each: in seven rounds of 32 instead of one after another.
func TestParallel(t *testing.T) {
	for parallel, want := range map[int]time.Duration{1: 1600 * time.Second, 32: 56 * time.Second, 500: 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, nodes := newSimulated(200, 8*time.Second)
			began, seen := time.Now(), &recorder{}
			results := Run(t.Context(), t.Context(), nodes, Options{Parallel: parallel}, s.task, seen)
			if took := time.Since(began); took != want || s.most != min(parallel, 200) {
				t.Errorf("%d at once: %v, want %v; %d ran at once", parallel, took, want, s.most)
			}
			if !slices.Equal(names(results), nodes) || Count(results)[OK] != 200 || len(seen.ended) != 200 || seen.steps != 400 {
				t.Errorf("%v, %d told", Count(results), len(seen.ended))
			}
			for _, r := range results {
				if r.Time != 8*time.Second {
					t.Errorf("%s took %v", r.Node, r.Time)
				}
			}
			t.Logf("200 nodes of 8s, %d at once: %v", parallel, want)
		})
	}
}

// A slow or dead node delays no other node.
func TestSlowAndDeadNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.takes = func(i int) time.Duration {
			if i%50 == 7 {
				return 100 * time.Second
			}
			return 8 * time.Second
		}
		s.fails = func(i int) bool { return i%20 == 3 }
		began := time.Now()
		results := Run(t.Context(), t.Context(), nodes, Options{Parallel: 32}, s.task, &recorder{})
		if c := Count(results); c[OK] != 190 || c[Failed] != 10 {
			t.Errorf("%v", c)
		}
		for i, r := range results {
			if at := s.ended[r.Node].Sub(began); i%50 != 7 && at > 80*time.Second {
				t.Errorf("%s has waited for others: %v", r.Node, at)
			}
		}
	})
}

// No node of a batch starts before all nodes of the previous batch have ended.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.takes = func(i int) time.Duration { return time.Duration(1+i%7) * time.Second }
		began := time.Now()
		Run(t.Context(), t.Context(), nodes, Options{Parallel: 32, Batch: 20}, s.task, &recorder{})
		if took := time.Since(began); took != 70*time.Second || s.most != 20 {
			t.Errorf("%v, %d at once", took, s.most)
		}
		for i := 20; i < 200; i += 20 {
			if !slices.Contains(s.begun[i:i+20], nodes[i]) {
				t.Errorf("%s was not begun in its batch", nodes[i])
			}
		}
	})
}

func TestMaxFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.fails = func(i int) bool { return i >= 40 }
		results := Run(t.Context(), t.Context(), nodes, Options{Parallel: 10, MaxFailures: 3}, s.task, &recorder{})
		// Those that run at once with the third are not held back by it.
		if c := Count(results); c[OK] != 40 || c[Failed] < 3 || c[Failed] > 13 || c[OK]+c[Failed]+c[Skipped] != 200 {
			t.Errorf("%v", c)
		}
		if last := results[199]; last.State != Skipped || last.Cause == "" || last.Time != 0 {
			t.Errorf("%+v", last)
		}
	})
}

// The first Ctrl-C: no further node is started, those before the switch stay as they
// are, those in it end.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.takes = func(i int) time.Duration {
			if i < 5 {
				return 4 * time.Second // in the switch when it comes
			}
			return 8 * time.Second
		}
		stop, halt := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { halt(errors.New("Ctrl-C")) })
		began := time.Now()
		results := Run(t.Context(), stop, nodes, Options{Parallel: 10}, s.task, &recorder{})
		if c := Count(results); c[OK] != 5 || c[Interrupted] != 5 || c[Skipped] != 190 {
			t.Errorf("%v", c)
		}
		if took := time.Since(began); took != 4*time.Second {
			t.Errorf("%v", took)
		}
	})
}

// The second Ctrl-C: no node is waited for.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(20, 100*time.Second)
		ctx, leave := context.WithCancel(t.Context())
		stop, halt := context.WithCancel(ctx)
		time.AfterFunc(60*time.Second, halt)
		time.AfterFunc(61*time.Second, leave)
		began := time.Now()
		results := Run(ctx, stop, nodes, Options{Parallel: 10}, s.task, &recorder{})
		if c := Count(results); c[Failed] != 10 || c[Skipped] != 10 || time.Since(began) != 61*time.Second {
			t.Errorf("%v after %v", c, time.Since(began))
		}
	})
}

func TestNoNodes(t *testing.T) {
	if results := Run(t.Context(), t.Context(), nil, Options{}, nil, &recorder{}); len(results) != 0 {
		t.Error(results)
	}
}

func TestParseBatch(t *testing.T) {
	for _, tt := range []struct {
		text        string
		nodes, want int
	}{
		{"", 200, 0}, {"10%", 200, 20}, {"10%", 5, 1}, {"1%", 101, 2}, {"100%", 7, 7}, {"3", 200, 3}, {"500", 200, 500},
		{"0", 1, -1}, {"-1", 1, -1}, {"0%", 1, -1}, {"101%", 1, -1}, {"x", 1, -1}, {"%", 1, -1}, {"1.5", 1, -1},
	} {
		if got, err := ParseBatch(tt.text, tt.nodes); (err != nil) != (tt.want < 0) || err == nil && got != tt.want {
			t.Errorf("%q of %d: %d %v", tt.text, tt.nodes, got, err)
		}
	}
}

// 200 nodes that take 10 ms each.
func BenchmarkNodes200(b *testing.B) {
	for _, parallel := range []int{1, 32} {
		b.Run(fmt.Sprintf("parallel-%d", parallel), func(b *testing.B) {
			for b.Loop() {
				s, nodes := newSimulated(200, 10*time.Millisecond)
				if c := Count(Run(b.Context(), b.Context(), nodes, Options{Parallel: parallel}, s.task, &recorder{})); c[OK] != 200 {
					b.Fatal(c)
				}
			}
		})
	}
}
