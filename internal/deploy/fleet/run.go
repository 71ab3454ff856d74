// Package fleet runs one task on many nodes: in batches, and on a limited number of nodes
// at a time. A failed node does not stop the others. The package also writes the results
// file.
//
// It must not depend on what the task is, or how progress and results are displayed: it calls
// an Observer for each change.
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

// The states. A dry run has Differs instead of OK.
const (
	OK          State = "ok"
	Unchanged   State = "unchanged"
	Differs     State = "differs"
	Failed      State = "failed"
	Skipped     State = "skipped"     // it was not started
	Interrupted State = "interrupted" // it was started, and stopped before any change
)

// Result is the result of one node.
type Result struct {
	Node    string
	State   State
	Time    time.Duration
	Cause   string   // why the state is Failed, Skipped or Interrupted
	Class   string   // the part of the cause that is the same on all nodes; "": Cause
	Hint    string   // the next action
	Changes []string // what was changed or, in a dry run, would be changed
	Notes   []string // other remarks
	Status  []string // status texts that the daemons report
	Journal []string // last journal lines of a daemon that did not become ready
}

// Options limit how many nodes run concurrently.
type Options struct {
	Parallel    int // at least 1
	Batch       int // nodes in a batch, which must finish before the next batch starts; 0: no batches
	MaxFailures int // failed nodes after which no further node starts; 0: no limit
}

// Task is run for a node. When stop is done, it should return unless it has already
// started to change the node; when ctx is done, it must return. It calls step to report
// its progress.
type Task func(ctx, stop context.Context, node string, step func(string)) Result

// Observer is notified of progress. Its methods are not called concurrently.
type Observer interface {
	Start(node string)
	Step(node, step string)
	Finish(r Result)
}

// Run runs the task for all nodes, in this order, and returns their results in the same
// order. It starts no node when stop is done.
func Run(ctx, stop context.Context, nodes []string, o Options, task Task, observer Observer) []Result {
	r := &runner{o: o, task: task, observer: observer, results: make([]Result, len(nodes))}
	size := o.Batch
	if size <= 0 {
		size = len(nodes)
	}
	for start := 0; start < len(nodes); start += size {
		r.batch(ctx, stop, nodes, start, min(start+size, len(nodes)))
	}
	return r.results
}

type runner struct {
	o        Options
	task     Task
	observer Observer
	results  []Result

	mu     sync.Mutex // protects failed, and calls of the observer
	failed int
}

// batch runs nodes[start:end] and returns when all are finished.
func (r *runner) batch(ctx, stop context.Context, nodes []string, start, end int) {
	var wg sync.WaitGroup
	free := make(chan struct{}, max(1, r.o.Parallel))
	for i := start; i < end; i++ {
		got := false
		select {
		case free <- struct{}{}:
			got = true
		case <-stop.Done():
		}
		if why := r.skipReason(stop); why != "" {
			if got {
				<-free
			}
			r.results[i] = Result{Node: nodes[i], State: Skipped, Cause: why}
			r.notify(func(o Observer) { o.Finish(r.results[i]) })
			continue
		}
		r.notify(func(o Observer) { o.Start(nodes[i]) })
		wg.Go(func() {
			defer func() { <-free }()
			r.one(ctx, stop, nodes[i], i)
		})
	}
	wg.Wait()
}

// skipReason returns why no further node is started, or "".
func (r *runner) skipReason(stop context.Context) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case stop.Err() != nil:
		return "not started: interrupted"
	case r.o.MaxFailures > 0 && r.failed >= r.o.MaxFailures:
		return fmt.Sprintf("not started: %d failed before (--max-failures)", r.failed)
	}
	return ""
}

func (r *runner) one(ctx, stop context.Context, node string, i int) {
	started := time.Now()
	res := r.task(ctx, stop, node, func(step string) { r.notify(func(o Observer) { o.Step(node, step) }) })
	res.Node, res.Time = node, time.Since(started)
	r.results[i] = res
	r.notify(func(o Observer) {
		if res.State == Failed {
			r.failed++
		}
		o.Finish(res)
	})
}

func (r *runner) notify(call func(Observer)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	call(r.observer)
}

// ParseBatch parses the size of a batch: a number of nodes, or a percentage of all nodes,
// which is rounded up. It returns 0, no batches, for "".
func ParseBatch(text string, nodes int) (int, error) {
	if text == "" {
		return 0, nil
	}
	number, percent := strings.CutSuffix(text, "%")
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || percent && n > 100 {
		return 0, fmt.Errorf("%.80q is neither a number of nodes nor a percentage such as 10%%", text)
	}
	if percent {
		n = (nodes*n + 99) / 100
	}
	return max(n, 1), nil
}
