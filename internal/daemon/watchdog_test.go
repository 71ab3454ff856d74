package daemon

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// watch runs test in a bubble of its own time with a watchdog of one minute.
func watch(t *testing.T, test func(t *testing.T, m *manager, w *Watchdog, out *buffer)) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "60000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	synctest.Test(t, func(t *testing.T) {
		log, out := logInto(t, "text")
		w, err := NewWatchdog(NewNotifier(log), log)
		if err != nil {
			t.Fatal(err)
		}
		test(t, m, w, out)
	})
}

// pass lets time go on and every goroutine come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func TestWatchdogPingsWhileTheLoopAnswers(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *Watchdog, out *buffer) {
		// A loop as a daemon has it, idle but for the tokens.
		tokens := make(chan chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		loopEnd := make(chan struct{})
		go func() {
			for {
				select {
				case token := <-tokens:
					close(token)
				case <-loopEnd:
					return
				}
			}
		}()
		probe := func(ctx context.Context) error {
			token := make(chan struct{})
			select {
			case tokens <- token:
			case <-ctx.Done():
				return ctx.Err()
			}
			<-token
			return nil
		}
		go w.Run(ctx, probe)

		pass(29 * time.Second)
		m.nothing()
		pass(2 * time.Second) // 31 s
		m.expect("WATCHDOG=1")
		pass(90 * time.Second)
		m.expect("WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
		if out.Len() > 0 {
			t.Errorf("logged: %s", out)
		}

		close(loopEnd) // the loop is stuck
		pass(44 * time.Second)
		m.nothing()
		if got := out.String(); strings.Count(got, "does not answer") != 1 ||
			!strings.Contains(got, `error="no answer in time"`) || !strings.Contains(got, "event=loop-stuck") {
			t.Errorf("before the manager ends us the log must say why, once: %s", got)
		}
		pass(10 * time.Minute)
		m.nothing()
		if got := out.String(); strings.Count(got, "\n") != 1 {
			t.Errorf("logged: %s", got)
		}
	})
}

func TestWatchdogRecovers(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *Watchdog, out *buffer) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var probes atomic.Int64
		var answer atomic.Pointer[func() error]
		answers := func(f func() error) { answer.Store(&f) }
		go w.Run(ctx, func(context.Context) error { probes.Add(1); return (*answer.Load())() })

		answers(func() error { return errors.New("queue is full") })
		pass(40 * time.Second)
		m.nothing()
		if n := probes.Load(); n < 2 || n > 5 {
			t.Errorf("%d probes: it must try again, without spinning", n)
		}
		answers(func() error { panic("boom") })
		pass(10 * time.Second)
		m.nothing()

		answers(func() error { return nil })
		pass(5 * time.Second) // 55 s: in time
		m.expect("WATCHDOG=1")
		got := out.String()
		if strings.Count(got, "does not answer") != 1 || !strings.Contains(got, "queue is full") || strings.Count(got, "answers again") != 1 {
			t.Errorf("logged: %s", got)
		}
		pass(30 * time.Second)
		m.expect("WATCHDOG=1")
	})
}

func TestWatchdogSlowAnswers(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *Watchdog, out *buffer) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var delay atomic.Int64
		delay.Store(int64(14 * time.Second))
		go w.Run(ctx, func(context.Context) error { time.Sleep(time.Duration(delay.Load())); return nil })
		last := time.Now()
		for range 5 {
			pass(45 * time.Second)
			m.expect("WATCHDOG=1")
			if since := time.Since(last); since >= 60*time.Second {
				t.Fatalf("%s between two pings: the manager would have ended us", since)
			}
			last = time.Now()
		}
		if out.Len() > 0 {
			t.Errorf("logged: %s", out)
		}
		delay.Store(int64(20 * time.Second)) // takes no notice of its context: too late is no answer
		pass(4 * time.Minute)
		m.nothing()
		cancel()
		pass(time.Minute)
	})
}

func TestWatchdogEndsWithItsContext(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *Watchdog, out *buffer) {
		for _, when := range []time.Duration{10 * time.Second, 31 * time.Second} { // waiting; probing
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				w.Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
				close(ended)
			}()
			pass(when)
			cancel()
			synctest.Wait()
			select {
			case <-ended:
			default:
				t.Errorf("still runs after its end at %s", when)
			}
		}
		m.nothing()
		if out.Len() > 0 {
			t.Errorf("an ordinary end was logged: %s", out)
		}
	})
}

func TestWatchdogNotAskedFor(t *testing.T) {
	for name, c := range map[string]struct{ usec, pid string }{
		"not set":     {"", ""},
		"for another": {"60000000", "1"},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		w, err := NewWatchdog(NewNotifier(nil), slog.Default())
		if err != nil || w.Interval() != 0 {
			t.Errorf("%s: %s, %v", name, w.Interval(), err)
		}
		w.Run(t.Context(), func(context.Context) error { t.Errorf("%s: probed", name); return nil })
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	w, err := NewWatchdog(NewNotifier(nil), slog.Default())
	if err == nil {
		t.Error("garbage is not reported")
	}
	w.Run(t.Context(), nil) // still usable
}
