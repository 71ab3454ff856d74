package wait

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, calls := time.Now(), 0
		if err := For(t.Context(), "the third call", func() (bool, error) { calls++; return calls == 3, nil }); err != nil || calls != 3 {
			t.Errorf("%v after %d calls", err, calls)
		}
		if d := time.Since(start); d != 3*time.Millisecond {
			t.Errorf("it took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := For(ctx, "rain", func() (bool, error) { return false, nil })
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "rain") {
			t.Error(err)
		}
		broken := errors.New("broken")
		if err := For(t.Context(), "rain", func() (bool, error) { return false, broken }); !errors.Is(err, broken) {
			t.Error(err)
		}
	})
}

func TestAdvance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		seen := false
		time.AfterFunc(time.Hour, func() { seen = true })
		Advance(time.Hour)
		if !seen {
			t.Error("the timer has not fired")
		}
	})
}
