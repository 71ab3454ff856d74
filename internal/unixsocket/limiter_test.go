package unixsocket

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// accounts returns the number of accounts.
func (l *Limiter) accounts() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.users)
}

func TestSlots(t *testing.T) {
	l := NewLimiter(LimiterOptions{What: "waits", User: Quota{Slots: 2}, Root: Quota{Slots: 3}, Total: 4})
	var releases []func()
	for i, tt := range []struct {
		uid  uint32
		want string
	}{
		{7, ""}, {7, ""},
		{7, "too many waits of uid 7: the limit is 2 at once; wait until one ends"},
		{8, ""}, {9, ""},
		{8, "too many waits on this node: the limit for all users is 4; try again later"},
		{0, ""}, {0, ""}, {0, ""},
		{0, "too many waits of uid 0: the limit is 3 at once; wait until one ends"},
	} {
		release, err := l.Acquire(tt.uid)
		if got := fmt.Sprint(err); got != tt.want && !(err == nil && tt.want == "") {
			t.Errorf("%d: uid %d: got %q, want %q", i, tt.uid, got, tt.want)
		}
		if _, ok := errors.AsType[*LimitError](err); (release == nil) != (err != nil) || ok != (err != nil) {
			t.Errorf("%d: release %v with %v", i, release == nil, err)
		}
		if err == nil {
			releases = append(releases, release)
		}
	}
	if user, all := l.InUse(7); user != 2 || all != 7 {
		t.Errorf("in use: %d of %d", user, all)
	}
	for _, r := range releases {
		r()
		r()
	}
	if user, all := l.InUse(7); user != 0 || all != 0 || l.accounts() != 0 {
		t.Errorf("in use: %d of %d; %d accounts", user, all, l.accounts())
	}
}

// Part of the slots is reserved for users without a slot.
func TestReserve(t *testing.T) {
	l := NewLimiter(LimiterOptions{What: "connections", User: Quota{Slots: 6}, Total: 10, Reserve: 3})
	var got []string
	for _, uid := range []uint32{7, 7, 7, 7, 7, 7, 7, 8, 8, 9, 9, 10, 11, 0} {
		_, err := l.Acquire(uid)
		got = append(got, fmt.Sprint(uid, " ", err == nil, " ", shared(err)))
	}
	want := []string{
		"7 true false", "7 true false", "7 true false", "7 true false", "7 true false", "7 true false", "7 false false",
		"8 true false", "8 false true", "9 true false", "9 false true", "10 true false", "11 true false", "0 true false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %v,\nwant %v", got, want)
	}
}

func TestRate(t *testing.T) {
	type ask struct {
		after time.Duration
		n     int // number of events
		want  int // allowed events
		retry time.Duration
	}
	for _, tt := range []struct {
		name  string
		quota Quota
		asks  []ask
	}{
		{"no limit", Quota{}, []ask{{0, 1000, 1000, 0}}},
		{"negative is no limit", Quota{Rate: -1}, []ask{{0, 1000, 1000, 0}}},
		{"not a number is no limit", Quota{Rate: math.NaN()}, []ask{{0, 1000, 1000, 0}}},
		{"no burst means one", Quota{Rate: 1}, []ask{{0, 2, 1, time.Second}, {time.Second, 2, 1, time.Second}}},
		{"burst, then rate", Quota{Rate: 2, Burst: 5}, []ask{
			{0, 7, 5, 500 * time.Millisecond},
			{499 * time.Millisecond, 1, 0, time.Millisecond},
			{time.Millisecond, 2, 1, 500 * time.Millisecond},
			{1250 * time.Millisecond, 3, 2, 250 * time.Millisecond},
		}},
		{"the burst refills up to its size", Quota{Rate: 2, Burst: 5}, []ask{{0, 5, 5, 0}, {time.Hour, 6, 5, 500 * time.Millisecond}}},
		{"faster than the clock", Quota{Rate: 1e12, Burst: 2}, []ask{{0, 1000, 1000, 0}}},
		{"one in a very long time", Quota{Rate: 1e-30, Burst: math.MaxInt}, []ask{{0, 1000, 1000, 0}}},
		{"rarely", Quota{Rate: 1e-30, Burst: 1}, []ask{{0, 2, 1, 24 * time.Hour}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewLimiter(LimiterOptions{What: "copies", User: tt.quota})
				for i, a := range tt.asks {
					wait.Advance(a.after)
					allowed := 0
					var last error
					for range a.n {
						if err := l.Allow(7); err == nil {
							allowed++
						} else {
							last = err
						}
					}
					if allowed != a.want {
						t.Errorf("step %d: %d of %d allowed, want %d", i, allowed, a.n, a.want)
					}
					var limit *LimitError
					if errors.As(last, &limit) != (a.retry != 0) || limit != nil && limit.RetryAfter != a.retry {
						t.Errorf("step %d: %+v, want to retry after %v", i, last, a.retry)
					}
				}
			})
		})
	}
}

// A caller that waits for RetryAfter is allowed, whatever the rate.
func TestRetryAfterIsEnough(t *testing.T) {
	for _, perSecond := range []float64{0.3, 1, 3, 7, 1000, 30_000, 3e6} {
		synctest.Test(t, func(t *testing.T) {
			l := NewLimiter(LimiterOptions{What: "copies", User: Quota{Rate: perSecond}})
			for range 20 {
				if err := l.Allow(7); err != nil {
					t.Fatalf("%g per second: %v", perSecond, err)
				}
				for range 3 { // refused events do not count
					var limit *LimitError
					if err := l.Allow(7); !errors.As(err, &limit) || limit.RetryAfter <= 0 {
						t.Fatalf("%g per second: %+v", perSecond, err)
					}
				}
				var limit *LimitError
				errors.As(l.Allow(7), &limit)
				wait.Advance(limit.RetryAfter)
			}
		})
	}
}

// New limits apply immediately, even to users with an account.
func TestNewRate(t *testing.T) {
	for _, tt := range []struct {
		name          string
		before, after Quota
		used          int
		idle, advance time.Duration
		allowed       int
	}{
		{"larger burst, unused", Quota{Rate: 1, Burst: 2}, Quota{Rate: 1, Burst: 5}, 2, time.Hour, 0, 5},
		{"larger burst, fully used", Quota{Rate: 1, Burst: 2}, Quota{Rate: 1, Burst: 5}, 2, 0, 0, 3},
		{"smaller burst, unused", Quota{Rate: 1, Burst: 5}, Quota{Rate: 1, Burst: 2}, 1, time.Hour, 0, 2},
		{"smaller burst, fully used", Quota{Rate: 1, Burst: 5}, Quota{Rate: 1, Burst: 2}, 5, 0, 0, 0},
		{"smaller burst, then a second", Quota{Rate: 1, Burst: 5}, Quota{Rate: 1, Burst: 2}, 5, 0, time.Second, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := NewLimiter(LimiterOptions{User: tt.before})
				for range tt.used {
					if err := l.Allow(7); err != nil {
						t.Fatal(err)
					}
				}
				wait.Advance(tt.idle)
				l.Set(LimiterOptions{User: tt.after})
				count := func() (n int) {
					for l.Allow(7) == nil {
						n++
					}
					return n
				}
				got := count()
				if tt.advance > 0 {
					wait.Advance(tt.advance)
					got = count()
				}
				if got != tt.allowed {
					t.Errorf("%d allowed, want %d", got, tt.allowed)
				}
			})
		})
	}
}

func TestRateMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimiterOptions{What: "copies", User: Quota{Rate: 0.5, Burst: 1}})
		l.Allow(7)
		got := l.Allow(7)
		if want := "too many copies of uid 7: the limit is 0.5 per second after the first 1; try again in 2s"; fmt.Sprint(got) != want {
			t.Errorf("got %q", got)
		}
		if l.Allow(8) != nil || l.Allow(0) != nil {
			t.Error("other users are limited, too")
		}
	})
}

// Few accounts are kept, however many users have sent events.
func TestAccountsAreRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimiterOptions{User: Quota{Rate: 1, Burst: 3}, Root: Quota{Rate: 0.001}})
		for uid := range uint32(100_000) {
			l.Allow(uid)
			if uid%100 == 0 {
				wait.Advance(time.Second)
			}
			if n := l.accounts(); n > 500 {
				t.Fatalf("%d accounts after %d users", n, uid)
			}
		}
		release, _ := l.Acquire(7)
		wait.Advance(time.Hour)
		for range 500 {
			l.Allow(5)
		}
		if n := l.accounts(); n != 2 {
			t.Errorf("%d accounts, want that of the user with a slot and of the last user", n)
		}
		release()
		wait.Advance(time.Hour)
		l.Allow(5)
		if n := l.accounts(); n != 1 {
			t.Errorf("%d accounts", n)
		}
	})
}

// A user whose account was removed is not allowed more than one whose account was kept.
func TestRemovedAccountGivesNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(LimiterOptions{User: Quota{Rate: 1, Burst: 4}})
		r := rand.New(rand.NewPCG(1, 2))
		allowed, start := 0, time.Now()
		for range 20_000 {
			wait.Advance(time.Duration(r.IntN(int(2 * time.Second))))
			for range r.IntN(4) {
				if l.Allow(7) == nil {
					allowed++
				}
			}
			if r.IntN(3) == 0 {
				l.Allow(uint32(r.IntN(50)) + 10)
			}
			if most := 4 + time.Since(start).Seconds(); float64(allowed) > most {
				t.Fatalf("%d allowed in %v", allowed, time.Since(start))
			}
		}
	})
}

func TestSet(t *testing.T) {
	l := NewLimiter(LimiterOptions{User: Quota{Slots: 3}})
	var releases []func()
	for range 3 {
		r, err := l.Acquire(7)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, r)
	}
	l.Set(LimiterOptions{User: Quota{Slots: 1}})
	for i := range 3 {
		if _, err := l.Acquire(7); err == nil {
			t.Errorf("a slot above the new limit, with %d in use", 3-i)
		}
		releases[i]()
	}
	if _, err := l.Acquire(7); err != nil {
		t.Error(err)
	}
}

func TestNilLimiter(t *testing.T) {
	var l *Limiter
	release, err := l.Acquire(7)
	if err != nil || l.Allow(7) != nil {
		t.Error("a nil Limiter refuses")
	}
	release()
	if user, all := l.InUse(7); user+all != 0 {
		t.Error("a nil Limiter counts")
	}
}

// Concurrent use: for the race detector, and to check the sums.
func TestLimiterConcurrently(t *testing.T) {
	l := NewLimiter(LimiterOptions{User: Quota{Slots: 3, Rate: 1e6, Burst: 10}, Total: 20})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				uid := uint32(i*g%5 + 1)
				if release, err := l.Acquire(uid); err == nil {
					l.Allow(uid)
					if user, all := l.InUse(uid); user > 3 || all > 20 {
						t.Errorf("%d of %d in use", user, all)
					}
					release()
				}
			}
		})
	}
	wg.Wait()
	if _, all := l.InUse(1); all != 0 {
		t.Errorf("%d in use", all)
	}
}
