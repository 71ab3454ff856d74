package lab

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The output, notices, signals and usage of a process. A shell replaces the daemon.
func TestProcess(t *testing.T) {
	l := newLab(t)
	script := `echo '{"msg":"mounted","path":"/x"}' >&2; echo plain "$NOTIFY_SOCKET" "$WATCHDOG_USEC" >&2
		trap 'echo hup >&2' HUP; trap 'exit 7' TERM; lvs --nolock; while :; do sleep 0.01; done`
	d, err := l.start(Spec{Program: "/bin/sh", Args: []string{"-c", script}, Watchdog: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.WaitLog(soon(t), func(ll LogLine) bool { return ll.Fields["msg"] == "mounted" })
	if err != nil || line.Fields["path"] != "/x" {
		t.Errorf("%+v %v", line, err)
	}
	line, err = d.WaitLog(soon(t), func(ll LogLine) bool { return strings.HasPrefix(ll.Text, "plain") })
	f := strings.Fields(line.Text)
	if err != nil || len(f) != 3 || f[2] != "1000000" || line.Fields != nil {
		t.Fatalf("%+v %v", line, err)
	}
	if c, err := l.WaitCall(soon(t), func(c Call) bool { return c.Tool == "lvs" && c.Exit == 0 }); err != nil || c.PPID != d.PID {
		t.Errorf("%+v %v", c, err)
	}
	conn, err := net.Dial("unixgram", f[1])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, text := range []string{"STATUS=starting", "READY=1\nSTATUS=1 mounted"} {
		if _, err := conn.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if took, err := d.WaitReady(soon(t)); err != nil || took <= 0 || took > time.Minute {
		t.Errorf("%v %v", took, err)
	}
	last := d.Notices()[len(d.Notices())-1]
	if v, ok := last.Value("STATUS"); !ok || v != "1 mounted" {
		t.Errorf("%+v", last)
	}
	if err := d.Hup(); err != nil {
		t.Fatal(err)
	}
	if _, err := d.WaitLog(soon(t), func(ll LogLine) bool { return ll.Text == "hup\n" }); err != nil {
		t.Error(err)
	}
	if u, err := d.Usage(); err != nil || u.RSS < 100_000 || u.Anonymous <= 0 || u.Anonymous > u.RSS || u.Switches() <= 0 || u.Threads != 1 {
		t.Errorf("%+v %v", u, err)
	}
	for _, s := range l.strays() { // a child of the shell may exist
		if s.PID == d.PID {
			t.Errorf("an expected process is a stray: %+v", s)
		}
	}
	if err := d.Term(); err != nil {
		t.Fatal(err)
	}
	if code, err := d.Wait(soon(t)); code != 7 || err != nil {
		t.Errorf("code %d %v", code, err)
	}
	d, err = l.start(Spec{Program: "/bin/sleep", Args: []string{"1000"}, NoNotify: true})
	if err != nil {
		t.Fatal(err)
	}
	d.Kill9()
	if code, err := d.Wait(soon(t)); code != 128+int(unix.SIGKILL) || err != nil {
		t.Errorf("code %d %v", code, err)
	}
}

func TestListeners(t *testing.T) {
	none, err := listeners(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	one, err := listeners(os.Getpid())
	if err != nil || len(one) != len(none)+1 || !slices.ContainsFunc(one, func(a string) bool { return strings.HasPrefix(a, "0100007F:") }) {
		t.Errorf("%q then %q, %v", none, one, err)
	}
}

func TestMissingProgram(t *testing.T) {
	l := newLab(t)
	t.Setenv("CLIENTMOUNTD", "")
	t.Chdir(t.TempDir())
	if _, err := l.start(Spec{}); err == nil {
		t.Error("started a missing program")
	}
	t.Setenv("CLIENTMOUNTD", "/nonexistent")
	if _, err := l.start(Spec{}); err == nil || !strings.Contains(err.Error(), "CLIENTMOUNTD") {
		t.Errorf("%v", err)
	}
}

// A process with a passed socket has its own PID in LISTEN_PID, and the socket as
// descriptor 3.
func TestListen(t *testing.T) {
	l := newLab(t)
	path := filepath.Join(l.Dir, "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	file, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := l.start(Spec{
		Program: "/bin/sh", Listen: file,
		Args: []string{"-c", `echo "$LISTEN_FDS $LISTEN_PID $$ $1 $(readlink /proc/$$/fd/3)"`, "-", "a b"},
	})
	if err != nil {
		t.Fatal(err)
	}
	line, err := d.WaitLog(soon(t), func(LogLine) bool { return true })
	pid := strconv.Itoa(d.PID)
	if want := "1 " + pid + " " + pid + " a b socket:["; err != nil || !strings.HasPrefix(line.Text, want) {
		t.Errorf("%q, want %q: %v", line.Text, want, err)
	}
	if code, err := d.Wait(soon(t)); code != 0 || err != nil {
		t.Error(code, err)
	}
}

func TestRun(t *testing.T) {
	l := newLab(t)
	exit := (*exec.ExitError)(nil)
	if err := l.Run(exec.Command("/bin/sh", "-c", "exit 3")); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Error(err)
	}
	if err := l.Run(exec.Command(filepath.Join(l.Dir, "nothing"))); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	noLeftovers(t, l)
}

// The checks of Start at the end of a test.
func TestStart(t *testing.T) {
	l := newLab(t)
	for _, tt := range []struct{ name, script, want string }{
		{"good", `trap 'exit 0' TERM; echo ready; while :; do sleep 0.01; done`, ""},
		{"exit code", `trap 'exit 7' TERM; echo ready; while :; do sleep 0.01; done`, "exit code 7"},
		{"early exit", `echo ready; exit 3`, "exit code 3"},
		{"panic", `trap 'exit 0' TERM; echo 'panic: oh'; echo ready; while :; do sleep 0.01; done`, "in the log: panic: oh"},
		{"trace", `trap 'exit 0' TERM; echo 'goroutine 1 [running]:'; echo ready; while :; do sleep 0.01; done`, "in the log: goroutine"},
		{"leftover", `trap 'exit 0' TERM; sleep 1000 & echo ready; while :; do sleep 0.01; done`, "process group"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := Do(t.Context(), func(tb TB) {
				p := Start(tb, l, Spec{Program: "/bin/sh", Args: []string{"-c", tt.script}, NoNotify: true})
				if _, err := p.WaitLog(tb.Context(), func(l LogLine) bool { return l.Text == "ready\n" }); err != nil {
					tb.Fatal(err)
				}
				if tt.name == "early exit" {
					<-p.Done()
				}
			})
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	t.Run("exit code read", func(t *testing.T) {
		if err := Do(t.Context(), func(tb TB) {
			p := Start(tb, l, Spec{Program: "/bin/sh", Args: []string{"-c", "exit 3"}, NoNotify: true})
			if code, err := p.Wait(tb.Context()); code != 3 || err != nil {
				tb.Errorf("%d %v", code, err)
			}
		}); err != nil {
			t.Error(err)
		}
	})
}

func TestDo(t *testing.T) {
	var order []string
	err := Do(t.Context(), func(tb TB) {
		tb.Cleanup(func() { order = append(order, "first"); tb.Fatal("in a cleanup") })
		tb.Cleanup(func() { order = append(order, "last") })
		tb.Error(os.ErrNotExist)
		tb.Fatalf("%d", 7)
		t.Error("Fatalf returns")
	})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "7\nin a cleanup") || !slices.Equal(order, []string{"last", "first"}) {
		t.Errorf("%v %v", err, order)
	}
	if err := Do(t.Context(), func(TB) {}); err != nil {
		t.Error(err)
	}
}

// The name of a program may contain the characters that end it in the file.
func TestCPUTime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "stat")
	for text, want := range map[string]time.Duration{
		"7 (sh) S 1 2 3 4 5 6 7 8 9 10 120 30 0 0 20 0 1 0": 1500 * time.Millisecond,
		"7 (a) b) S 1 2 3 4 5 6 7 8 9 10 1 0 0 0 20 0 1 0":  10 * time.Millisecond,
		"7 (sh) S 1 2 3": -1,
		"":               -1,
		"7 (sh) S 1 2 3 4 5 6 7 8 9 10 x 30 0 0 20 0 1 0": -1,
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := cpuTime(path); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
	}
}
