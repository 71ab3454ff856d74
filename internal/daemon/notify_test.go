package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// manager replaces the socket of the service manager.
type manager struct {
	t    *testing.T
	conn *net.UnixConn
}

// startManager listens at name ("@…" is an abstract socket) and sets NOTIFY_SOCKET.
func startManager(t *testing.T, name string) *manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return &manager{t, conn}
}

// expect reads one message for each of want and checks that there are no others.
// Datagrams on a local socket are available as soon as the sender returns.
func (m *manager) expect(want ...string) {
	m.t.Helper()
	var got []string
	buf := make([]byte, 8192)
	for range want {
		m.conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := m.conn.Read(buf)
		if err != nil {
			m.t.Fatalf("got %q, want %q: %v", got, want, err)
		}
		got = append(got, string(buf[:n]))
	}
	m.nothing()
	for i := range want {
		if !regexp.MustCompile("^(?:" + want[i] + ")$").MatchString(got[i]) {
			m.t.Errorf("message %d: got %q, want %s", i, got[i], want[i])
		}
	}
}

func (m *manager) nothing() {
	m.t.Helper()
	raw, err := m.conn.SyscallConn()
	if err != nil {
		m.t.Fatal(err)
	}
	raw.Read(func(fd uintptr) bool {
		if text, waiting := peek(int(fd)); waiting {
			m.t.Errorf("unexpected message %q", text)
		}
		return true
	})
}

func TestNotify(t *testing.T) {
	abstract := fmt.Sprintf("@daemon-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, name := range []string{filepath.Join(t.TempDir(), "notify"), abstract} {
		m := startManager(t, name)
		n := newNotifier(nil)
		n.Ready()
		n.Ready()
		m.expect("READY=1")
		n.Status("2 mounts, API server answers")
		n.Status("2 mounts, API server answers")
		m.expect("STATUS=2 mounts, API server answers")
		n.Status("1 mount")
		n.Status("2 mounts, API server answers")
		m.expect("STATUS=1 mount", "STATUS=2 mounts, API server answers")
		n.stopping()
		n.stopping()
		m.expect("STOPPING=1")
	}
}

func TestNotifyReloading(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	n := newNotifier(nil)
	calls := 0
	n.reloading(func() { calls++ })
	m.nothing() // READY=1 would end the start too early

	n.Ready()
	m.expect("READY=1")
	n.reloading(func() {
		calls++
		m.expect(`RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n`)
		n.Status("reading") // must not deadlock
	})
	m.expect("STATUS=reading", "READY=1")

	func() {
		defer func() { recover() }()
		n.reloading(func() { panic("bad file") })
	}()
	m.expect(`RELOADING=1\nMONOTONIC_USEC=.*\n`, "READY=1")

	n.stopping()
	m.expect("STOPPING=1")
	n.reloading(func() { calls++ })
	m.nothing()
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}

// Text from an object cannot become a separate message.
func TestNotifyStatusIsOneShortLine(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	n := newNotifier(nil)
	n.Status("x\nMAINPID=1\nREADY=1")
	m.expect(`STATUS=x\\nMAINPID=1\\nREADY=1`)
	n.Status(strings.Repeat("\x01", 100_000))
	m.expect(`STATUS=(\\x01){512}… \(100000 bytes\)`)
}

func TestNotifyWithoutSocket(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var none *Notifier
	for _, n := range []*Notifier{newNotifier(nil), none} {
		n.Ready()
		n.Status("x")
		called := false
		n.reloading(func() { called = true })
		n.stopping()
		n.ping()
		if !called {
			t.Error("the configuration was not read")
		}
	}
}

func TestNotifyErrorIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	log, out := logInto(t, "text")
	n := newNotifier(log)
	n.Status("1")
	n.Status("2")
	if got := strings.Count(out.String(), "cannot notify"); got != 1 {
		t.Errorf("logged %d times: %s", got, out)
	}
	m := startManager(t, path)
	n.Status("3")
	m.expect("STATUS=3")
	m.conn.Close()
	os.Remove(path)
	n.Status("4")
	if got := strings.Count(out.String(), "cannot notify"); got != 2 {
		t.Errorf("logged %d times: %s", got, out)
	}
}

// watch runs test in a synctest bubble with a watchdog of one minute.
func watch(t *testing.T, test func(t *testing.T, m *manager, w *watchdog, out *buffer)) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "60000000")
	t.Setenv("WATCHDOG_PID", strconv.Itoa(os.Getpid()))
	synctest.Test(t, func(t *testing.T) {
		log, out := logInto(t, "text")
		w, err := newWatchdog(newNotifier(log), log)
		if err != nil {
			t.Fatal(err)
		}
		test(t, m, w, out)
	})
}

func TestWatchdogPingsWhileTheLoopResponds(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *watchdog, out *buffer) {
		// The main loop of a daemon, which only handles tokens.
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

		wait.Advance(29 * time.Second)
		m.nothing()
		wait.Advance(2 * time.Second) // 31 s
		m.expect("WATCHDOG=1")
		wait.Advance(90 * time.Second)
		m.expect("WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1")
		if out.Len() > 0 {
			t.Errorf("logged: %s", out)
		}

		close(loopEnd) // the loop is stuck
		wait.Advance(44 * time.Second)
		m.nothing()
		if got := out.String(); strings.Count(got, "does not respond") != 1 ||
			!strings.Contains(got, `error="no answer in time"`) || !strings.Contains(got, "event=loop-stuck") {
			t.Errorf("the log must have the reason once: %s", got)
		}
		wait.Advance(10 * time.Minute)
		m.nothing()
		if got := out.String(); strings.Count(got, "\n") != 1 {
			t.Errorf("logged: %s", got)
		}
	})
}

func TestWatchdogRecovers(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *watchdog, out *buffer) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var probes atomic.Int64
		var answer atomic.Pointer[func() error]
		answers := func(f func() error) { answer.Store(&f) }
		go w.Run(ctx, func(context.Context) error { probes.Add(1); return (*answer.Load())() })

		answers(func() error { return errors.New("queue is full") })
		wait.Advance(40 * time.Second)
		m.nothing()
		if n := probes.Load(); n < 2 || n > 5 {
			t.Errorf("%d probes, want a few", n)
		}
		answers(func() error { panic("boom") })
		wait.Advance(10 * time.Second)
		m.nothing()

		answers(func() error { return nil })
		wait.Advance(5 * time.Second) // 55 s: in time
		m.expect("WATCHDOG=1")
		got := out.String()
		if strings.Count(got, "does not respond") != 1 || !strings.Contains(got, "queue is full") || strings.Count(got, "responds again") != 1 {
			t.Errorf("logged: %s", got)
		}
		wait.Advance(30 * time.Second)
		m.expect("WATCHDOG=1")
	})
}

func TestWatchdogSlowAnswers(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *watchdog, out *buffer) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var delay atomic.Int64
		delay.Store(int64(14 * time.Second))
		go w.Run(ctx, func(context.Context) error { <-time.After(time.Duration(delay.Load())); return nil })
		last := time.Now()
		for range 5 {
			wait.Advance(45 * time.Second)
			m.expect("WATCHDOG=1")
			if since := time.Since(last); since >= 60*time.Second {
				t.Fatalf("%s between two pings is too long", since)
			}
			last = time.Now()
		}
		if out.Len() > 0 {
			t.Errorf("logged: %s", out)
		}
		delay.Store(int64(20 * time.Second)) // ignores its context: a late answer is a failure
		wait.Advance(4 * time.Minute)
		m.nothing()
		cancel()
		wait.Advance(time.Minute)
	})
}

func TestWatchdogStopsWithItsContext(t *testing.T) {
	watch(t, func(t *testing.T, m *manager, w *watchdog, out *buffer) {
		for _, when := range []time.Duration{10 * time.Second, 31 * time.Second} { // waiting; probing
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan struct{})
			go func() {
				w.Run(ctx, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
				close(ended)
			}()
			wait.Advance(when)
			cancel()
			synctest.Wait()
			select {
			case <-ended:
			default:
				t.Errorf("still running after the cancellation at %s", when)
			}
		}
		m.nothing()
		if out.Len() > 0 {
			t.Errorf("logged: %s", out)
		}
	})
}

func TestWatchdogDisabled(t *testing.T) {
	for name, c := range map[string]struct{ usec, pid string }{
		"not set":             {"", ""},
		"for another process": {"60000000", "1"},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		w, err := newWatchdog(newNotifier(nil), slog.Default())
		if err != nil || w.interval != 0 {
			t.Errorf("%s: %s, %v", name, w.interval, err)
		}
		w.Run(t.Context(), func(context.Context) error { t.Errorf("%s: probed", name); return nil })
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	w, err := newWatchdog(newNotifier(nil), slog.Default())
	if err == nil {
		t.Error("an invalid value is not reported")
	}
	w.Run(t.Context(), nil) // still usable
}
