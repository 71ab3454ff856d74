// Package wait provides functions with which tests, the demo and the benchmarks wait: for
// a condition, with a deadline and a description of the condition, or on the virtual
// clock of testing/synctest.
//
// It must not know the conditions.
package wait

import (
	"context"
	"fmt"
	"testing/synctest"
	"time"
)

// limit is long, so that tests pass on a busy machine. A passing test never takes that
// long.
const limit = time.Minute

// TB is the part of testing.TB that this package uses.
type TB interface {
	Helper()
	Context() context.Context
	Fatal(args ...any)
}

// Until polls a condition until it is true. After a minute it fails the test; what
// describes the condition.
func Until(tb TB, what string, ok func() bool) {
	tb.Helper()
	Within(tb, limit, what, ok)
}

// Within is Until with another limit.
func Within(tb TB, limit time.Duration, what string, ok func() bool) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(tb.Context()), limit)
	defer cancel()
	if err := For(ctx, what, func() (bool, error) { return ok(), nil }); err != nil {
		tb.Fatal(err)
	}
}

// For polls a condition until it is true, returns an error, or ctx is done. The interval
// grows from 1 ms to 50 ms.
func For(ctx context.Context, what string, ok func() (bool, error)) error {
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		done, err := ok()
		if err != nil {
			return fmt.Errorf("waiting for %s: %w", what, err)
		}
		if done {
			return nil
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return fmt.Errorf("timed out waiting for %s: %w", what, context.Cause(ctx))
		}
	}
}

// Pass waits for d in real time. It is for tests that depend on a duration, such as that
// of an outage. why is the reason.
func Pass(tb TB, d time.Duration, why string) {
	tb.Helper()
	select {
	case <-time.After(d):
	case <-tb.Context().Done():
		tb.Fatal("the test was cancelled during ", why)
	}
}

// Advance advances the virtual clock of a testing/synctest bubble by d and waits until
// all goroutines of the bubble are blocked. It must be called in a bubble.
func Advance(d time.Duration) {
	time.Sleep(d) // virtual: takes no time
	synctest.Wait()
}
