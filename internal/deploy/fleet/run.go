// Package fleet runs one task on many nodes: a limited number at a time, in batches, and
// it continues with the next node when one has failed. It keeps the results file.
//
// It must not know what the task is, nor how progress and results are shown: an Observer
// is called with each change.
package fleet

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// State is the result of a node.
type State string

// The states. Dry runs have Differs instead of OK.
const (
	OK          State = "ok"
	Unchanged   State = "unchanged"
	Differs     State = "differs"
	Failed      State = "failed"
	Skipped     State = "skipped"     // not started
	Interrupted State = "interrupted" // started, and ended before anything was changed
)

// Result is the result of one node, with its reason.
type Result struct {
	Node    string
	State   State
	Time    time.Duration
	Cause   string   // why it is not OK
	Class   string   // the cause without what differs from node to node; "": the cause itself
	Hint    string   // what to do
	Changes []string // what was changed, or would be
	Notes   []string // what else there is to know
	Said    []string // what daemons report of themselves
	Journal []string // of a daemon that does not get ready
}

// Options limit how many nodes run at once.
type Options struct {
	Parallel    int // at least 1
	Batch       int // the next nodes start when so many have ended; 0: no batches
	MaxFailures int // no node starts after so many have failed; 0: no limit
}

// Task is run for a node. When stop ends, it should end before it changes anything; when
// ctx ends, it must end. step reports its progress.
type Task func(ctx, stop context.Context, node string, step func(string)) Result

// Observer is notified of progress, by one goroutine at a time.
type Observer interface {
	Begin(node string)
	Step(node, step string)
	End(r Result)
}

// Run runs the task for all nodes, in their order, and returns their results in the same
// order. After the end of stop it starts no node.
func Run(ctx, stop context.Context, nodes []string, o Options, task Task, observer Observer) []Result {
	r := &runner{o: o, task: task, observer: observer, results: make([]Result, len(nodes))}
	size := o.Batch
	if size <= 0 {
		size = len(nodes)
	}
	for begin := 0; begin < len(nodes); begin += size {
		r.batch(ctx, stop, nodes, begin, min(begin+size, len(nodes)))
	}
	return r.results
}

type runner struct {
	o        Options
	task     Task
	observer Observer
	results  []Result

	mu     sync.Mutex // for the observer and
	failed int
}

// batch runs nodes[begin:end] and returns when all have ended.
func (r *runner) batch(ctx, stop context.Context, nodes []string, begin, end int) {
	var wg sync.WaitGroup
	free := make(chan struct{}, max(1, r.o.Parallel))
	for i := begin; i < end; i++ {
		got := false
		select {
		case free <- struct{}{}:
			got = true
		case <-stop.Done():
		}
		if why := r.noMore(stop); why != "" {
			if got {
				<-free
			}
			r.results[i] = Result{Node: nodes[i], State: Skipped, Cause: why}
			r.hear(func(o Observer) { o.End(r.results[i]) })
			continue
		}
		r.hear(func(o Observer) { o.Begin(nodes[i]) })
		wg.Go(func() {
			defer func() { <-free }()
			r.one(ctx, stop, nodes[i], i)
		})
	}
	wg.Wait()
}

// noMore returns why no further node is started, or "".
func (r *runner) noMore(stop context.Context) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case stop.Err() != nil:
		return "not begun: interrupted"
	case r.o.MaxFailures > 0 && r.failed >= r.o.MaxFailures:
		return fmt.Sprintf("not begun: %d failed before (--max-failures)", r.failed)
	}
	return ""
}

func (r *runner) one(ctx, stop context.Context, node string, i int) {
	began := time.Now()
	res := r.task(ctx, stop, node, func(step string) { r.hear(func(o Observer) { o.Step(node, step) }) })
	res.Node, res.Time = node, time.Since(began)
	r.results[i] = res
	r.hear(func(o Observer) {
		if res.State == Failed {
			r.failed++
		}
		o.End(res)
	})
}

func (r *runner) hear(what func(Observer)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	what(r.observer)
}

// ParseBatch reads the size of a batch: a number of nodes, or a percentage of all nodes,
// rounded up. "" is 0: no batches.
func ParseBatch(text string, nodes int) (int, error) {
	if text == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return 0, fmt.Errorf("a batch is a number of nodes or a part of them as 10%%, not %.80q", text)
	}
	if percent {
		n = (nodes*n + 99) / 100
	}
	return max(n, 1), nil
}
