package server

import (
	"context"
	"time"
)

// remembered keeps one answer of the API server for a while. Several callers at
// once make one request; each waits no longer than its own context.
type remembered[T any] struct {
	fetch func(context.Context) (T, error)
	turn  chan struct{} // held while asking
	value T
	at    time.Time // zero: nothing is remembered
}

func remember[T any](fetch func(context.Context) (T, error)) *remembered[T] {
	return &remembered[T]{fetch: fetch, turn: make(chan struct{}, 1)}
}

// get returns the answer, not older than age. fresh tells that it was asked for
// just now. A failure is not remembered.
func (r *remembered[T]) get(ctx context.Context, age time.Duration) (value T, fresh bool, err error) {
	select {
	case r.turn <- struct{}{}:
	case <-ctx.Done():
		return value, false, ctx.Err()
	}
	defer func() { <-r.turn }()
	if !r.at.IsZero() && time.Since(r.at) < age {
		return r.value, false, nil
	}
	if value, err = r.fetch(ours(ctx)); err != nil {
		return value, false, err
	}
	r.value, r.at = value, time.Now()
	return value, true, nil
}
