package server

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Calls at the same time share a request, but none gets an answer that is older
// than its question.
func TestSharedLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lists
		key := listKey{1001, "x"}
		var sent, state atomic.Int64
		fetch := func() ([]*nnf.DataMovement, error) {
			sent.Add(1)
			items := make([]*nnf.DataMovement, state.Load())
			kube.Pause(context.Background(), time.Second)
			return items, nil
		}
		type answer struct{ asked, got int }
		answers := make(chan answer, 100)
		ask := func(k listKey) {
			at := int(state.Load())
			go func() {
				items, err := l.get(t.Context(), k, fetch)
				if err != nil {
					t.Error(err)
				}
				answers <- answer{at, len(items)}
			}()
			synctest.Wait()
		}
		for range 20 { // at 0, 0.1, ..., 1.9 s
			ask(key)
			state.Add(1)
			wait.Advance(time.Second / 10)
		}
		ask(listKey{1002, "x"})
		wait.Advance(10 * time.Second)
		for range 21 {
			if a := <-answers; a.got < a.asked {
				t.Errorf("a call that started at state %d got state %d", a.asked, a.got)
			}
		}
		if n := sent.Load(); n != 4 { // at 0, 1 and 2 s, and the other user's
			t.Errorf("%d requests", n)
		}
		if len(l.next) != 0 {
			t.Errorf("%d requests are remembered", len(l.next))
		}
	})
}

// When a call ends, its request ends too; the others send their own.
func TestSharedListSenderGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lists
		key := listKey{1001, "x"}
		get := func(ctx context.Context) error {
			_, err := l.get(ctx, key, func() ([]*nnf.DataMovement, error) {
				select {
				case <-time.After(10 * time.Second):
					return nil, nil
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			})
			return err
		}
		results := make(chan error, 3)
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		go func() { results <- get(short) }() // sends
		synctest.Wait()
		go func() { results <- get(short) }() // waits for the next one
		synctest.Wait()
		go func() { results <- get(t.Context()) }()
		for range 2 {
			if err := <-results; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		if err := <-results; err != nil {
			t.Error(err)
		}
		if len(l.next) != 0 {
			t.Errorf("%d requests are remembered", len(l.next))
		}
	})
}
