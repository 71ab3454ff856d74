package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// pass admits waiting requests one by one and returns their order.
func pass(t *testing.T, l *limiter, n int, start func(wait func(name string, ctx context.Context))) []string {
	t.Helper()
	got := make(chan string, n)
	start(func(name string, ctx context.Context) {
		go func() {
			if err := l.Wait(ctx); err != nil {
				name += " failed"
			}
			got <- name
		}()
		synctest.Wait()
	})
	var order []string
	for range n {
		order = append(order, <-got)
		wait.Advance(time.Millisecond)
	}
	return order
}

// drained returns a limiter of one request per second without remaining burst.
func drained(t *testing.T) *limiter {
	l := newLimiter(1, 4)
	for range 4 {
		if err := l.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func TestLimiterOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		order := pass(t, drained(t), 7, func(request func(string, context.Context)) {
			with := func(p *Priority) context.Context { return WithPriority(t.Context(), p) }
			request("retry after 5", with(RetryPriority(5)))
			request("retry after 2", with(RetryPriority(2)))
			request("report", Reporting(with(FirstPriority())))
			request("older first", with(FirstPriority()))
			request("newer first", with(FirstPriority()))
			request("finish of a retry", Finishing(with(RetryPriority(9))))
			request("own", t.Context())
		})
		want := []string{"own", "finish of a retry", "newer first", "older first",
			"retry after 5", // the fourth request, so the one that has waited longest
			"report", "retry after 2"}
		if !slices.Equal(order, want) {
			t.Errorf("order %q, want %q", order, want)
		}
	})
}

// However many newer requests arrive, the oldest one is sent within the limit.
func TestLimiterDoesNotStarve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(20, 1)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		flood := func() {
			every := time.NewTicker(10 * time.Millisecond) // five times the rate
			defer every.Stop()
			for ctx.Err() == nil {
				go func() { _ = l.Wait(WithPriority(ctx, FirstPriority())) }()
				<-every.C
			}
		}
		go flood()
		wait.Advance(time.Second)
		l.mu.Lock()
		older := len(l.waiting)
		l.mu.Unlock()
		began := time.Now()
		if err := l.Wait(WithPriority(ctx, RetryPriority(100))); err != nil {
			t.Fatal(err)
		}
		most := time.Duration(oldestEvery*(older+1)) * time.Second / 20
		if took := time.Since(began); took > most+time.Second {
			t.Errorf("a retry waited %v behind %d older requests, want at most %v", took, older, most)
		}
		cancel()
		wait.Advance(time.Second) // until the flood has ended
	})
}

func TestLimiterRaise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(20, 40)
		ctx := t.Context()
		for range 10 { // the burst of retries
			if err := l.Wait(WithPriority(ctx, RetryPriority(1))); err != nil {
				t.Fatal(err)
			}
		}
		priority := RetryPriority(1)
		sent := make(chan time.Time, 1)
		go func() { _ = l.Wait(WithPriority(ctx, priority)); sent <- time.Now() }()
		synctest.Wait()
		began := time.Now()
		priority.Raise()
		if d := (<-sent).Sub(began); d > 0 {
			t.Errorf("a raised request still waited %v", d)
		}
	})
}

// The total stays within rate and burst, and retries within their share.
func TestLimiterRates(t *testing.T) {
	for name, retry := range map[string]bool{"first attempts": false, "retries": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLimiter(20, 40)
				var n atomic.Int32
				for range 1000 {
					priority := FirstPriority()
					if retry {
						priority = RetryPriority(1)
					}
					go func() {
						if l.Wait(WithPriority(t.Context(), priority)) == nil {
							n.Add(1)
						}
					}()
				}
				wait.Advance(10 * time.Second)
				want := int32(40 + 20*10)
				if retry {
					want /= retryShare
				}
				if got := n.Load(); got < want-1 || got > want {
					t.Errorf("%d requests in 10 s, want %d", got, want)
				}
				wait.Advance(10 * time.Minute)
			})
		})
	}
}

func TestLimiterCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := drained(t)
		ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
		defer cancel()
		if err := l.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := l.Wait(ctx); !errors.Is(err, errTooLate) || time.Since(began) > 0 {
			t.Errorf("a request without a priority that would be too late: %v after %v", err, time.Since(began))
		}
		if err := l.Wait(WithPriority(ctx, FirstPriority())); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if len(l.waiting) > 0 || l.timer != nil {
			t.Errorf("%d wait, timer %v: there must be none while no caller waits", len(l.waiting), l.timer)
		}
	})
}

// The time in the limiter is not part of the time limit of a request.
func TestQueueIsNotATimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []time.Time
		transport := answering(func(r *http.Request) (*http.Response, error) {
			calls = append(calls, time.Now())
			return nil, fmt.Errorf("refused")
		})
		o := Options{Kubeconfig: write(t, t.TempDir(), "config", `{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c"}}],
"clusters":[{"name":"c","cluster":{"server":"http://api.test"}}]}`, 0o600), QPS: 0.1, Burst: 1, Timeout: time.Second, Transport: transport, Environ: func(string) string { return "" }}
		c, err := Dial(o)
		if err != nil {
			t.Fatal(err)
		}
		ctx := WithPriority(t.Context(), FirstPriority())
		began := time.Now()
		sent := 0
		for range 3 {
			err := c.Get(WithSent(ctx, func() { sent++ }), clientMounts, "c1", "a", nil)
			if err == nil || strings.Contains(err.Error(), "did not respond") {
				t.Errorf("got %v", err)
			}
		}
		if len(calls) != 3 || sent != 3 || calls[2].Sub(began) < 19*time.Second {
			t.Errorf("%d requests, %d reported, the last after %v", len(calls), sent, calls[len(calls)-1].Sub(began))
		}
	})
}

type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A request whose context ends at the moment when it may be sent returns its token.
func TestCancelledRequestReturnsItsToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := 0
		for range 50 {
			l := drained(t)
			ctx, cancel := context.WithCancel(t.Context())
			first, second := make(chan error, 1), make(chan error, 1)
			go func() { first <- l.Wait(ctx) }()
			synctest.Wait()
			go func() { second <- l.Wait(t.Context()) }()
			synctest.Wait()
			l.mu.Lock()
			wait.Advance(timeUntil(l.all, time.Now(), 1)) // with the lock, so that the timer of the limiter comes later
			cancel()
			l.dispatch()
			l.mu.Unlock()
			began := time.Now()
			failed := <-first
			if err := <-second; err != nil {
				t.Fatal(err)
			}
			if failed != nil {
				ended++
				if d := time.Since(began); d > 0 {
					t.Fatalf("the next request was sent %v later", d)
				}
			}
		}
		if ended == 0 {
			t.Error("all requests were sent before they were cancelled")
		}
	})
}
