package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/json"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// rabbits replace the data movement software on all rabbits: they follow the data
// movements of all nodes with one watch and report that these run, progress and finish.
// Nothing is copied.
type rabbits struct {
	client *kube.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu    sync.Mutex
	found map[string]*transfer // by name
	last  map[string]time.Time // when the last status of a node was sent
}

// transfer is a data movement.
type transfer struct{ namespace, name, node string }

var dataMovements = kube.Resource{Group: api.GroupNNF, Version: api.VersionsNNF[0], Plural: "nnfdatamovements", Kind: nnf.KindDataMovement}

// newRabbits starts to follow all data movements.
func newRabbits(ctx context.Context, c *kube.Client) *rabbits {
	ctx, stop := context.WithCancel(ctx)
	r := &rabbits{client: c, stop: stop, done: make(chan struct{}), found: map[string]*transfer{}, last: map[string]time.Time{}}
	go func() {
		defer close(r.done)
		_ = kube.Watch(ctx, c, dataMovements, "", kube.WatchOptions{}, kube.Handler[nnf.DataMovement]{
			Replace: func(all []*nnf.DataMovement) {
				for _, dm := range all {
					r.add(dm)
				}
			},
			Upsert: r.add,
		})
	}()
	return r
}

func (r *rabbits) close() {
	r.stop()
	<-r.done
}

func (r *rabbits) add(dm *nnf.DataMovement) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.found[dm.Name] == nil {
		r.found[dm.Name] = &transfer{dm.Namespace, dm.Name, dm.Labels[api.LabelInitiator]}
	}
}

func (r *rabbits) transfers() (out []*transfer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.found {
		out = append(out, t)
	}
	return out
}

// start waits for n data movements, and reports that they run, and then their progress.
func (r *rabbits) start(ctx context.Context, n int) error {
	if err := wait.For(ctx, fmt.Sprintf("%d data movements", n), func() (bool, error) { return len(r.transfers()) >= n, nil }); err != nil {
		return err
	}
	for _, command := range []map[string]any{
		{"command": "dcp"},
		{"command": "dcp", "progress": 50, "elapsedTime": "1.500s", "lastMessage": "Copied 1.000 GiB (50%)", "lastMessageTime": fixture.Stamp(time.Now())},
	} {
		if err := r.report(ctx, map[string]any{"state": nnf.MovementRunning, "startTime": fixture.Stamp(time.Now()), "commandStatus": command}); err != nil {
			return err
		}
	}
	return nil
}

// finish reports the success of all data movements.
func (r *rabbits) finish(ctx context.Context) error {
	return r.report(ctx, map[string]any{
		"state": nnf.MovementFinished, "status": nnf.MovementSuccess, "endTime": fixture.Stamp(time.Now()),
		"commandStatus": map[string]any{"progress": 100},
	})
}

// report merges into the status of all data movements.
func (r *rabbits) report(ctx context.Context, status map[string]any) error {
	body, err := json.Marshal(map[string]any{"status": status})
	if err != nil {
		return err
	}
	return parallel(writers, r.transfers(), func(t *transfer) error {
		r.mu.Lock()
		r.last[t.node] = time.Now()
		r.mu.Unlock()
		return persist(ctx, func() error {
			return r.client.Patch(ctx, dataMovements, t.namespace, t.name, "status", types.MergePatchType, body, nil)
		})
	})
}

// finished returns when the last status of the data movements of a node was sent.
func (r *rabbits) finished(node string) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last[node]
}
