package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// TestMain runs the helper program instead of the tests if DAEMON_TEST_HELPER is set.
func TestMain(m *testing.M) {
	if helper := os.Getenv("DAEMON_TEST_HELPER"); helper != "" {
		os.Exit(helpers[helper]())
	}
	goleak.VerifyTestMain(m)
}

// peek reads the next datagram, if there is one, without blocking.
func peek(fd int) (string, bool) {
	buf := make([]byte, 8192)
	n, _, err := unix.Recvfrom(fd, buf, unix.MSG_DONTWAIT)
	return string(buf[:max(n, 0)]), err == nil
}

// running is a runLifecycle in a synctest bubble.
type running struct {
	t       *testing.T
	signals chan os.Signal
	exit    chan int
	out     *buffer
	cancel  context.CancelFunc
}

func start(t *testing.T, o lifecycle) *running {
	l := &running{t: t, signals: make(chan os.Signal), exit: make(chan int, 1)}
	o.Log, l.out = logInto(t, "text")
	o.Signals = l.signals
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.exit <- runLifecycle(ctx, o) }()
	synctest.Wait()
	return l
}

func (l *running) signal(sig os.Signal) {
	l.signals <- sig
	synctest.Wait()
}

func (l *running) runs() {
	l.t.Helper()
	synctest.Wait()
	select {
	case code := <-l.exit:
		l.t.Fatalf("exited with code %d: %s", code, l.out)
	default:
	}
}

func (l *running) ends(code int, logged ...string) {
	l.t.Helper()
	synctest.Wait()
	select {
	case got := <-l.exit:
		if got != code {
			l.t.Errorf("exit code %d, want %d", got, code)
		}
	default:
		l.t.Fatalf("still running: %s", l.out)
	}
	for _, text := range logged {
		if !strings.Contains(l.out.String(), text) {
			l.t.Errorf("no %s in the log:\n%s", text, l.out)
		}
	}
	l.cancel()
}

func untilCancelled(ctx context.Context) error {
	<-ctx.Done()
	return context.Cause(ctx)
}

func TestSignalStopsMain(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		synctest.Test(t, func(t *testing.T) {
			var cause error
			l := start(t, lifecycle{Main: func(ctx context.Context) error {
				<-ctx.Done()
				cause = context.Cause(ctx)
				<-time.After(5 * time.Second) // a running step may finish
				return ctx.Err()
			}})
			wait.Advance(time.Hour)
			l.runs()
			l.signal(sig)
			wait.Advance(4 * time.Second)
			l.runs()
			wait.Advance(2 * time.Second)
			l.ends(ExitOK, "event=stopping", "signal="+sig.String(), "limit=30s", "event=stopped exit_code=0")
			if cause == nil || !strings.Contains(cause.Error(), sig.String()) {
				t.Errorf("cause %v", cause)
			}
		})
	}
}

type coded int

func (c coded) Error() string { return "no credentials" }
func (c coded) ExitCode() int { return int(c) }

func TestMainReturns(t *testing.T) {
	for name, c := range map[string]struct {
		main   func(context.Context) error
		code   int
		logged []string
	}{
		"no error":       {func(context.Context) error { return nil }, 0, []string{"event=stopped"}},
		"with an error":  {func(context.Context) error { return errors.New("no token") }, 1, []string{`error="no token"`}},
		"with a code":    {func(context.Context) error { return fmt.Errorf("start: %w", coded(2)) }, 2, []string{"no credentials"}},
		"cancelled":      {func(context.Context) error { return context.Canceled }, 1, []string{"context canceled"}}, // not by a signal
		"with a panic":   {func(context.Context) error { panic("boom") }, 1, []string{"panic: boom", "event=panic", "lifecycle_test.go"}},
		"without return": {func(context.Context) error { runtime.Goexit(); return nil }, 1, []string{"without returning"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start(t, lifecycle{Main: c.main}).ends(c.code, c.logged...)
			})
		})
	}
}

func TestErrorWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, lifecycle{Main: func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("status was not written")
		}})
		l.signal(syscall.SIGTERM)
		l.ends(ExitFailure, "status was not written")
	})
}

func TestShutdownIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limit := time.Hour
		release := make(chan struct{})
		defer close(release)
		l := start(t, lifecycle{
			Main:            func(context.Context) error { <-release; return nil },
			ShutdownTimeout: func() time.Duration { return limit },
			Left:            func() string { return "mount of /mnt/nnf/job7 (pid 17)" },
		})
		limit = 10 * time.Second // changed by a reload
		l.signal(syscall.SIGTERM)
		wait.Advance(9 * time.Second)
		l.runs()
		wait.Advance(2 * time.Second)
		l.ends(ExitFailure, "event=stop-forced", "limit=10s", `left="mount of /mnt/nnf/job7 (pid 17)"`)
	})
}

func TestSecondSignal(t *testing.T) {
	for name, c := range map[string]struct {
		left func() string
		want string
	}{
		"work is left":     {func() string { return "one mount" }, `left="one mount"`},
		"no Left function": {nil, "left=unknown"},
		"panics":           {func() string { panic("boom") }, "boom"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				release := make(chan struct{})
				defer close(release)
				l := start(t, lifecycle{Main: func(context.Context) error { <-release; return nil }, Left: c.left})
				l.signal(syscall.SIGTERM)
				l.runs()
				l.signal(syscall.SIGINT)
				l.ends(130, "second signal", c.want)
			})
		})
	}
}

func TestParentContextCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, lifecycle{Main: untilCancelled})
		l.cancel()
		l.ends(ExitOK, `cause="context canceled"`)
	})
}

func TestReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls, concurrent := 0, 0
		next := make(chan struct{})
		l := start(t, lifecycle{Main: untilCancelled, Reload: func() {
			calls++
			if concurrent++; concurrent > 1 {
				t.Error("two concurrent reloads")
			}
			<-next
			concurrent--
		}})
		l.signal(syscall.SIGHUP)
		for range 5 { // signals during a reload cause one more call, not five
			l.signal(syscall.SIGHUP)
		}
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
		next <- struct{}{}
		synctest.Wait()
		if calls != 2 {
			t.Errorf("%d calls: a signal was lost", calls)
		}
		next <- struct{}{}
		synctest.Wait()
		l.signal(syscall.SIGHUP)
		if calls != 3 {
			t.Errorf("%d calls", calls)
		}
		next <- struct{}{}
		l.signal(syscall.SIGTERM)
		l.ends(ExitOK)
	})
}

func TestReloadThatPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := start(t, lifecycle{Main: untilCancelled, Reload: func() { panic("bad file") }})
		l.signal(syscall.SIGHUP)
		l.runs()
		l.signal(syscall.SIGHUP)
		l.runs()
		l.signal(syscall.SIGTERM)
		l.ends(ExitOK, "reload failed", "panic: bad file")
	})
}

func TestReloadWhileStopping(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		calls := 0
		next := make(chan struct{})
		l := start(t, lifecycle{Main: untilCancelled, Reload: func() { calls++; <-next }})
		l.signal(syscall.SIGHUP)
		l.signal(syscall.SIGHUP)
		l.signal(syscall.SIGTERM)
		l.runs() // Main has returned, the reload has not
		l.signal(syscall.SIGHUP)
		next <- struct{}{}
		l.ends(ExitOK)
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
}

func TestNotifications(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	synctest.Test(t, func(t *testing.T) {
		n := newNotifier(nil)
		l := start(t, lifecycle{Notifier: n, Reload: func() {}, Main: func(ctx context.Context) error {
			n.Ready()
			return untilCancelled(ctx)
		}})
		m.expect("READY=1")
		l.signal(syscall.SIGHUP)
		m.expect(`RELOADING=1\nMONOTONIC_USEC=.*\n`, "READY=1")
		l.signal(syscall.SIGTERM)
		m.expect("STOPPING=1")
		l.ends(ExitOK)
	})
}

// Real signals in real time.
func TestRealSignals(t *testing.T) {
	log, out := logInto(t, "text")
	reloaded := make(chan struct{})
	self := func(sig syscall.Signal) {
		if err := syscall.Kill(os.Getpid(), sig); err != nil {
			t.Error(err)
		}
	}
	code := runLifecycle(t.Context(), lifecycle{
		Log:    log,
		Reload: func() { close(reloaded) },
		Main: func(ctx context.Context) error {
			self(syscall.SIGHUP)
			<-reloaded
			self(syscall.SIGTERM)
			<-ctx.Done()
			return ctx.Err()
		},
	})
	if code != ExitOK {
		t.Errorf("exit code %d: %s", code, out)
	}
}

func TestSafely(t *testing.T) {
	if err := Safely(func() error { return nil }); err != nil {
		t.Error(err)
	}
	if err := Safely(func() error { return fs.ErrExist }); err != fs.ErrExist {
		t.Errorf("the error is changed: %v", err)
	}
	err := Safely(func() error { panic("boom") })
	var p *PanicError
	if !errors.As(err, &p) || err.Error() != "panic: boom" || !strings.Contains(string(p.Stack), "TestSafely") {
		t.Errorf("got %#v", err)
	}
	if err := Safely(func() error { panic(fs.ErrExist) }); !errors.Is(err, fs.ErrExist) {
		t.Errorf("the cause is lost: %v", err)
	}
	var nilMap map[string]int
	if err := Safely(func() error { nilMap["x"] = 1; return nil }); err == nil || !strings.Contains(err.Error(), "nil map") {
		t.Errorf("runtime error: %v", err)
	}
}
