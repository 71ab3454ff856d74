package daemon

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// manager is a stand-in for the service manager's socket.
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

// expect reads one message for each of want, and that there is no other.
// Datagrams on a local socket are there when the sender returns.
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
		n := NewNotifier(nil)
		if !n.Enabled() {
			t.Error("not enabled")
		}
		n.Ready()
		n.Ready()
		m.expect("READY=1")
		n.Status("2 mounts, API server answers")
		n.Status("2 mounts, API server answers")
		m.expect("STATUS=2 mounts, API server answers")
		n.Status("1 mount")
		n.Status("2 mounts, API server answers")
		m.expect("STATUS=1 mount", "STATUS=2 mounts, API server answers")
		n.Stopping()
		n.Stopping()
		m.expect("STOPPING=1")
	}
}

func TestNotifyReloading(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	n := NewNotifier(nil)
	calls := 0
	n.Reloading(func() { calls++ })
	m.nothing() // READY=1 now would end the start too early

	n.Ready()
	m.expect("READY=1")
	n.Reloading(func() {
		calls++
		m.expect(`RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*\n`)
		n.Status("reading") // must not deadlock
	})
	m.expect("STATUS=reading", "READY=1")

	func() {
		defer func() { recover() }()
		n.Reloading(func() { panic("bad file") })
	}()
	m.expect(`RELOADING=1\nMONOTONIC_USEC=.*\n`, "READY=1")

	n.Stopping()
	m.expect("STOPPING=1")
	n.Reloading(func() { calls++ })
	m.nothing()
	if calls != 3 {
		t.Errorf("%d calls", calls)
	}
}

// Text out of an object must not become a message of its own.
func TestNotifyStatusIsOneShortLine(t *testing.T) {
	m := startManager(t, filepath.Join(t.TempDir(), "notify"))
	n := NewNotifier(nil)
	n.Status("x\nMAINPID=1\nREADY=1")
	m.expect(`STATUS=x\\nMAINPID=1\\nREADY=1`)
	n.Status(strings.Repeat("\x01", 100_000))
	m.expect(`STATUS=(\\x01){512}… \(100000 bytes\)`)
}

func TestNotifyNobody(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	var none *Notifier
	for _, n := range []*Notifier{NewNotifier(nil), none} {
		n.Ready()
		n.Status("x")
		called := false
		n.Reloading(func() { called = true })
		n.Stopping()
		n.ping()
		if n.Enabled() || !called {
			t.Errorf("enabled %v, called %v", n.Enabled(), called)
		}
	}
}

func TestNotifyTroubleIsLoggedOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	t.Setenv("NOTIFY_SOCKET", path)
	log, out := logInto(t, "text")
	n := NewNotifier(log)
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
