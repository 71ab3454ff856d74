package lab

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// A feed is a growing list that can be waited on.
type feed[T any] struct {
	mu      sync.Mutex
	items   []T
	changed chan struct{} // closed at every change
	ended   bool
}

func (f *feed[T]) change(apply func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	apply()
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

func (f *feed[T]) add(item T) { f.change(func() { f.items = append(f.items, item) }) }

// end says that nothing more will come.
func (f *feed[T]) end() { f.change(func() { f.ended = true }) }

func (f *feed[T]) all() []T {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.items)
}

func (f *feed[T]) clear() { f.change(func() { f.items = nil }) }

// wait returns the first item that fits, past or future.
func (f *feed[T]) wait(ctx context.Context, fits func(T) bool) (T, error) {
	for {
		f.mu.Lock()
		if i := slices.IndexFunc(f.items, fits); i >= 0 {
			defer f.mu.Unlock()
			return f.items[i], nil
		}
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		changed, ended, n := f.changed, f.ended, len(f.items)
		f.mu.Unlock()
		var none T
		if ended {
			return none, fmt.Errorf("none of %d fits and no more will come", n)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return none, fmt.Errorf("none of %d fits: %w", n, ctx.Err())
		}
	}
}
