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

// simulated is a fleet with simulated durations and failures.
type simulated struct {
	mu         sync.Mutex
	duration   func(i int) time.Duration
	fails      func(i int) bool
	number     map[string]int
	running    int
	maxRunning int
	started    []string
	finished   map[string]time.Time
}

func newSimulated(nodes int, duration time.Duration) (*simulated, []string) {
	s := &simulated{number: map[string]int{}, finished: map[string]time.Time{}}
	s.duration = func(int) time.Duration { return duration }
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
	s.maxRunning = max(s.maxRunning, s.running)
	s.started = append(s.started, node)
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.running--
		s.finished[node] = time.Now()
		s.mu.Unlock()
	}()
	half := s.duration(i) / 2
	step("inspect")
	select {
	case <-time.After(half):
	case <-stop.Done():
		return Result{State: Interrupted, Cause: "nothing was changed"}
	}
	step("switch")
	select {
	case <-time.After(half):
	case <-ctx.Done():
		return Result{State: Failed, Cause: "not waited for"}
	}
	if s.fails(i) {
		return Result{State: Failed, Cause: "not reachable", Hint: "check that the node is up"}
	}
	return Result{State: OK, Changes: []string{"write /x"}}
}

// recorder is an observer that panics if it is called concurrently.
type recorder struct {
	inside   bool
	finished []string
	steps    int
}

func (r *recorder) enter() {
	if r.inside {
		panic("concurrent calls of the observer")
	}
	r.inside = true
}
func (r *recorder) Start(string)        { r.enter(); r.inside = false }
func (r *recorder) Step(string, string) { r.enter(); r.steps++; r.inside = false }
func (r *recorder) Finish(res Result) {
	r.enter()
	r.finished = append(r.finished, res.Node)
	r.inside = false
}

func names(results []Result) (list []string) {
	for _, r := range results {
		list = append(list, r.Node)
	}
	return list
}

// 200 nodes of 8 seconds each take seven rounds with 32 in parallel.
func TestParallel(t *testing.T) {
	for parallel, want := range map[int]time.Duration{1: 1600 * time.Second, 32: 56 * time.Second, 500: 8 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			s, nodes := newSimulated(200, 8*time.Second)
			started, observer := time.Now(), &recorder{}
			results := Run(t.Context(), t.Context(), nodes, Options{Parallel: parallel}, s.task, observer)
			if took := time.Since(started); took != want || s.maxRunning != min(parallel, 200) {
				t.Errorf("%d in parallel: %v, want %v; %d ran in parallel", parallel, took, want, s.maxRunning)
			}
			if !slices.Equal(names(results), nodes) || Count(results)[OK] != 200 || len(observer.finished) != 200 || observer.steps != 400 {
				t.Errorf("%v, the observer has seen %d nodes", Count(results), len(observer.finished))
			}
			for _, r := range results {
				if r.Time != 8*time.Second {
					t.Errorf("%s took %v", r.Node, r.Time)
				}
			}
			t.Logf("200 nodes of 8s, %d in parallel: %v", parallel, want)
		})
	}
}

// Slow and failed nodes do not delay other nodes.
func TestSlowAndDeadNodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.duration = func(i int) time.Duration {
			if i%50 == 7 {
				return 100 * time.Second
			}
			return 8 * time.Second
		}
		s.fails = func(i int) bool { return i%20 == 3 }
		started := time.Now()
		results := Run(t.Context(), t.Context(), nodes, Options{Parallel: 32}, s.task, &recorder{})
		if c := Count(results); c[OK] != 190 || c[Failed] != 10 {
			t.Errorf("%v", c)
		}
		for i, r := range results {
			if at := s.finished[r.Node].Sub(started); i%50 != 7 && at > 80*time.Second {
				t.Errorf("%s has waited for other nodes: %v", r.Node, at)
			}
		}
	})
}

// No node of a batch starts before all nodes of the previous batch are finished.
func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.duration = func(i int) time.Duration { return time.Duration(1+i%7) * time.Second }
		started := time.Now()
		Run(t.Context(), t.Context(), nodes, Options{Parallel: 32, Batch: 20}, s.task, &recorder{})
		if took := time.Since(started); took != 70*time.Second || s.maxRunning != 20 {
			t.Errorf("%v, %d in parallel", took, s.maxRunning)
		}
		for i := 20; i < 200; i += 20 {
			if !slices.Contains(s.started[i:i+20], nodes[i]) {
				t.Errorf("%s was not started in its batch", nodes[i])
			}
		}
	})
}

func TestMaxFailures(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.fails = func(i int) bool { return i >= 40 }
		results := Run(t.Context(), t.Context(), nodes, Options{Parallel: 10, MaxFailures: 3}, s.task, &recorder{})
		// Nodes that run concurrently with the third failure continue.
		if c := Count(results); c[OK] != 40 || c[Failed] < 3 || c[Failed] > 13 || c[OK]+c[Failed]+c[Skipped] != 200 {
			t.Errorf("%v", c)
		}
		if last := results[199]; last.State != Skipped || last.Cause == "" || last.Time != 0 {
			t.Errorf("%+v", last)
		}
	})
}

// After the first Ctrl-C, no further node is started. Nodes before the switch are
// interrupted; nodes in the switch finish.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(200, 8*time.Second)
		s.duration = func(i int) time.Duration {
			if i < 5 {
				return 4 * time.Second // in the switch at that time
			}
			return 8 * time.Second
		}
		stop, halt := context.WithCancelCause(t.Context())
		time.AfterFunc(3*time.Second, func() { halt(errors.New("Ctrl-C")) })
		started := time.Now()
		results := Run(t.Context(), stop, nodes, Options{Parallel: 10}, s.task, &recorder{})
		if c := Count(results); c[OK] != 5 || c[Interrupted] != 5 || c[Skipped] != 190 {
			t.Errorf("%v", c)
		}
		if took := time.Since(started); took != 4*time.Second {
			t.Errorf("%v", took)
		}
	})
}

// After the second Ctrl-C, Run does not wait for any node.
func TestStopWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, nodes := newSimulated(20, 100*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		stop, halt := context.WithCancel(ctx)
		time.AfterFunc(60*time.Second, halt)
		time.AfterFunc(61*time.Second, cancel)
		started := time.Now()
		results := Run(ctx, stop, nodes, Options{Parallel: 10}, s.task, &recorder{})
		if c := Count(results); c[Failed] != 10 || c[Skipped] != 10 || time.Since(started) != 61*time.Second {
			t.Errorf("%v after %v", c, time.Since(started))
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
			t.Errorf("%q of %d nodes: %d %v", tt.text, tt.nodes, got, err)
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
