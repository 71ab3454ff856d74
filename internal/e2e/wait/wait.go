// Package wait is the one way in which tests, the demo and the benchmarks wait:
// for a condition, with a deadline and a message that says what did not happen, or
// on the virtual clock of testing/synctest.
//
// It must not know what is waited for.
package wait

import (
	"context"
	"fmt"
	"testing/synctest"
	"time"
)

// limit is generous: a test that waits for an event must also pass on a busy
// machine, and a passing test never takes that long.
const limit = time.Minute

// TB is what Until and Within use of a testing.TB.
type TB interface {
	Helper()
	Context() context.Context
	Fatal(args ...any)
}

// Until polls a condition until it holds. It fails the test with what did not
// happen after a minute.
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

// For polls a condition until it holds, it returns an error, or ctx ends. The
// pauses grow from 1 ms to 50 ms.
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
			return fmt.Errorf("waited in vain for %s: %w", what, context.Cause(ctx))
		}
	}
}

// Pass lets real time pass. It is for tests in which the length of time itself is the
// point, such as that of an outage; why says so.
func Pass(tb TB, d time.Duration, why string) {
	tb.Helper()
	select {
	case <-time.After(d):
	case <-tb.Context().Done():
		tb.Fatal("the test has ended during ", why)
	}
}

// Advance lets d pass on the virtual clock of a testing/synctest bubble and waits
// until every goroutine of the bubble is blocked again. It must not be called
// outside a bubble.
func Advance(d time.Duration) {
	time.Sleep(d) // virtual: takes no time
	synctest.Wait()
}
