package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func shell(s string) Command { return Command{Shell: s, Timeout: 10 * time.Second} }

func TestExecResults(t *testing.T) {
	for _, tt := range []struct {
		name, out, err, cause string
		c                     Command
	}{
		{name: "both streams", c: shell("echo out; echo err >&2"), out: "out\n", err: "err\n"},
		{name: "argv unchanged", c: Command{Argv: []string{"printf", "%s|", "a b", "$HOME", "*", ""}}, out: "a b|$HOME|*||"},
		{name: "status", c: shell("echo gone >&2; exit 32"), err: "gone\n", cause: "exit status 32"},
		{name: "signal", c: shell("kill -SEGV $$"), cause: "signal: segmentation fault"},
		{name: "killed", c: shell("kill -KILL $$"), cause: "signal: killed"},
		{name: "input is empty", c: shell("cat; echo end"), out: "end\n"},
		{name: "directory", c: shell("pwd"), out: "/\n"},
		{name: "missing", c: Command{Argv: []string{"no-such-program-here"}}, cause: `exec: "no-such-program-here": executable file not found in $PATH`},
		{name: "missing, absolute", c: Command{Argv: []string{"/no/such"}}, cause: `exec: "/no/such": stat /no/such: no such file or directory`},
		{name: "not executable", c: Command{Argv: []string{"/etc/passwd"}}, cause: `exec: "/etc/passwd": permission denied`},
		{name: "nothing", cause: "no program given"},
		{name: "not UTF-8", c: shell(`printf 'a\377b'`), out: "a\uFFFDb"},
		{name: "locale", c: Command{Argv: []string{"printenv", "LC_ALL"}}, out: "C\n"},
		{name: "own variable", c: Command{Argv: []string{"printenv", "LC_ALL"}, Env: []string{"LC_ALL=xx"}}, out: "xx\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := new(Exec).Run(t.Context(), tt.c)
			if res.Stdout != tt.out || res.Stderr != tt.err {
				t.Errorf("got %q, %q", res.Stdout, res.Stderr)
			}
			if tt.cause == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			ce, ok := errors.AsType[*CommandError](err)
			if !ok || !strings.HasPrefix(ce.Err.Error(), tt.cause) {
				t.Fatalf("got %v", err)
			}
			if ce.Line != tt.c.String() || ce.Stderr != tt.err || ce.TimedOut || ce.PID != 0 {
				t.Errorf("%+v", ce)
			}
		})
	}
}

func TestExecMissingProgramIsRecognised(t *testing.T) {
	if _, err := new(Exec).Run(t.Context(), Command{Argv: []string{"no-such-program-here"}}); !errors.Is(err, exec.ErrNotFound) {
		t.Error(err)
	}
}

func TestExecEnvironment(t *testing.T) {
	ours := []string{
		"PATH=/bin", "NOTIFY_SOCKET=/run/x", "WATCHDOG_USEC=1", "WATCHDOG_PID=2", "LISTEN_FDS=1", "LISTEN_PID=3",
		"LANG=de_DE.UTF-8", "LC_ALL=de_DE.UTF-8", "NOTIFY=1", "A=1",
	}
	for _, tt := range []struct {
		c    Command
		want []string
	}{
		{Command{Argv: []string{"x"}}, []string{"PATH=/bin", "LANG=de_DE.UTF-8", "NOTIFY=1", "A=1", "LC_ALL=C"}},
		{Command{Shell: "x", Env: []string{"A=2"}}, []string{"PATH=/bin", "LANG=de_DE.UTF-8", "LC_ALL=de_DE.UTF-8", "NOTIFY=1", "A=2"}},
	} {
		if got := environment(ours, tt.c); !slices.Equal(got, tt.want) {
			t.Errorf("%v: got %q", tt.c, got)
		}
	}
}

func TestExecOwnProcessGroup(t *testing.T) {
	res, err := new(Exec).Run(t.Context(), shell("ps -o pgid= -p $$; echo $$"))
	if f := strings.Fields(res.Stdout); err != nil || len(f) != 2 || f[0] != f[1] {
		t.Errorf("group and pid: %q, %v", res.Stdout, err)
	}
}

func TestExecOutputIsBounded(t *testing.T) {
	c := shell("echo first; head -c 104857600 /dev/zero | tr '\\0' x; echo; echo last")
	res, err := new(Exec).Run(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Stdout) > 65<<10 || len(res.Stdout) < 64<<10 ||
		!strings.HasPrefix(res.Stdout, "first\nxx") || !strings.HasSuffix(res.Stdout, "xx\nlast\n") ||
		!strings.Contains(res.Stdout, " bytes left out …") {
		t.Errorf("%d bytes: %.20q", len(res.Stdout), res.Stdout)
	}
	res, err = new(Exec).Run(t.Context(), Command{Shell: "seq 1000", Capture: 10})
	if err != nil || !utf8.ValidString(res.Stdout) || len(res.Stdout) > 60 {
		t.Errorf("own limit: %q, %v", res.Stdout, err)
	}
}

// Run returns within the limit plus a second, whatever a hanging command does.
func TestExecTimeLimit(t *testing.T) {
	for _, tt := range []struct{ name, line, cause string }{
		{"hangs", "echo started; exec sleep 60", "signal: terminated (time limit of 200ms reached)"},
		{"child hangs", "echo started; sleep 60; true", "signal: terminated (time limit of 200ms reached)"},
		{"ignores TERM", "trap '' TERM; echo started; while :; do sleep 60; done", "signal: killed (time limit of 200ms reached)"},
		{"grandchild ignores TERM and holds the pipe", "(trap '' TERM; sleep 60; sleep 60) & echo started; wait", "signal: terminated (time limit of 200ms reached)"},
		{"grandchild in another session holds the pipe", "setsid sleep 5 & echo started; sleep 60", "signal: terminated (time limit of 200ms reached)"},
		{"cleans up", "trap 'echo tidy; exit 3' TERM; echo started; sleep 60 & wait", "exit status 3 (time limit of 200ms reached)"},
		{"floods", "echo started; exec yes", "signal: terminated (time limit of 200ms reached)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bounded(t, 1200*time.Millisecond, func() {
				began := time.Now()
				res, err := new(Exec).Run(t.Context(), Command{Shell: tt.line, Timeout: 200 * time.Millisecond})
				ce, ok := errors.AsType[*CommandError](err)
				if !ok || !ce.TimedOut || ce.PID != 0 || ce.Err.Error() != tt.cause {
					t.Errorf("got %v", err)
				}
				if !strings.HasPrefix(res.Stdout, "started\n") || tt.name == "cleans up" && !strings.HasSuffix(res.Stdout, "tidy\n") {
					t.Errorf("printed %.40q", res.Stdout)
				}
				if d := time.Since(began); d < 200*time.Millisecond {
					t.Error("returned after", d)
				}
			})
		})
	}
}

// The whole group is killed, even if it ignores TERM and has closed our pipes.
func TestExecKillsTheGroup(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	c := Command{
		Shell:   `(trap '' TERM; echo $BASHPID >` + file + `; sleep 60; sleep 60) >/dev/null 2>&1 & wait`,
		Timeout: 300 * time.Millisecond,
	}
	if _, err := new(Exec).Run(t.Context(), c); err == nil {
		t.Fatal("no error")
	}
	b, err := os.ReadFile(file)
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	must(t, err)
	// There is no event for a process that is not our child.
	wait.Until(t, "the exit of the command's children", func() bool { return !alive(pid) })
}

// alive reports whether pid runs: it has not exited and is not a zombie.
func alive(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, state, _ := bytes.Cut(b, []byte(") "))
	return err == nil && !bytes.HasPrefix(state, []byte("Z")) && !bytes.HasPrefix(state, []byte("X"))
}

// A hook may start a service: it keeps running, and its open pipe delays Run only briefly.
func TestExecDoesNotKillDaemons(t *testing.T) {
	bounded(t, 2*time.Second, func() {
		res, err := new(Exec).Run(t.Context(), shell("sleep 60 & echo $!"))
		must(t, err)
		pid, err := strconv.Atoi(strings.TrimSpace(res.Stdout))
		must(t, err)
		if !alive(pid) {
			t.Error("it was killed")
		}
		unix.Kill(pid, unix.SIGKILL)
	})
}

func TestExecContext(t *testing.T) {
	why := errors.New("the daemon is stopping")
	ctx, cancel := context.WithCancelCause(t.Context())
	time.AfterFunc(100*time.Millisecond, func() { cancel(why) })
	bounded(t, 1100*time.Millisecond, func() {
		_, err := new(Exec).Run(ctx, Command{Argv: []string{"sleep", "60"}})
		if ce, ok := errors.AsType[*CommandError](err); !ok || !ce.TimedOut || !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
	_, err := new(Exec).Run(ctx, Command{Argv: []string{"touch", filepath.Join(t.TempDir(), "x")}})
	if !errors.Is(err, why) || !strings.Contains(err.Error(), "not started") {
		t.Errorf("with a cancelled context: %v", err)
	}
}

// A program that survives SIGKILL is abandoned, and reaped when it exits. A real state D
// needs a stuck file system, so this test simulates it by not reporting the exit.
func TestExecAbandonsStuckProcess(t *testing.T) {
	var log bytes.Buffer
	logged := make(chan struct{})
	h := slog.NewTextHandler(writer(func(p []byte) (int, error) { defer close(logged); return log.Write(p) }), nil)
	p, err := start(shell("exec sleep 60"))
	must(t, err)
	real := p.exited
	p.exited = make(chan struct{})
	why := p.await(t.Context(), 10*time.Millisecond)
	bounded(t, time.Second, func() { p.terminate(10 * time.Millisecond) })
	p.out.stop()
	p.err.stop()
	err = p.reap(slog.New(h), "sleep 60")
	if why == nil || !errors.Is(err, errSurvived) || !strings.Contains(err.Error(), "as pid "+strconv.Itoa(p.pid)) {
		t.Errorf("got %v, %v", why, err)
	}
	<-real
	close(p.exited)
	<-logged
	if !strings.Contains(log.String(), "signal: terminated") {
		t.Errorf("log: %s", log.String())
	}
	if err := unix.Kill(p.pid, 0); err != unix.ESRCH {
		t.Error("it was not reaped:", err)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestExecLeaksNoDescriptors(t *testing.T) {
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(d)
	}
	new(Exec).Run(t.Context(), shell("true"))
	before := count()
	for range 20 {
		new(Exec).Run(t.Context(), shell("true"))
		new(Exec).Run(t.Context(), Command{Argv: []string{"/etc"}})
		new(Exec).Run(t.Context(), Command{Argv: []string{"sleep", "9"}, Timeout: time.Millisecond})
	}
	if after := count(); after > before {
		t.Errorf("%d descriptors, then %d", before, after)
	}
}

func TestCaptureKeepsBothEnds(t *testing.T) {
	for _, tt := range []struct {
		in   []string
		want string
	}{
		{nil, ""},
		{[]string{"abc"}, "abc"},
		{[]string{"abcd", "efgh"}, "abcdefgh"}, // exactly the limit
		{[]string{"abcdefghi"}, "abcd\n… 1 bytes left out …\nfghi"},
		{[]string{"abcdef", "ghijkl", "m"}, "abcd\n… 5 bytes left out …\njklm"},
		{[]string{"a", "bcdefghijklmnopqrstuvwxyz", "0", "1"}, "abcd\n… 20 bytes left out …\nyz01"},
	} {
		c := capture{limit: 8}
		for _, s := range tt.in {
			if n, err := c.Write([]byte(s)); n != len(s) || err != nil {
				t.Errorf("Write: %d, %v", n, err)
			}
		}
		if got := c.String(); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

// The captured ends do not depend on how the output is split into writes.
func TestCapturePieces(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 2000 {
		limit := 1 + r.IntN(40)
		var all strings.Builder
		c := capture{limit: limit}
		for range r.IntN(30) {
			p := make([]byte, r.IntN(50))
			for i := range p {
				p[i] = byte('a' + r.IntN(26))
			}
			all.Write(p)
			c.Write(p)
		}
		want := all.String()
		if n := len(want) - limit; n > 0 {
			want = fmt.Sprintf("%s\n… %d bytes left out …\n%s", want[:limit/2], n, want[len(want)-(limit-limit/2):])
		}
		if got := c.String(); got != want {
			t.Fatalf("round %d, limit %d: got %q, want %q", round, limit, got, want)
		}
	}
}

func TestCaptureIsValidUTF8(t *testing.T) {
	c := capture{limit: 11}
	c.Write([]byte("ok\xff\xfe ééééééééé\xc3"))
	if s := c.String(); !utf8.ValidString(s) || !strings.HasPrefix(s, "ok\uFFFD") {
		t.Errorf("%q", s)
	}
}

// ioctls of linux/fs.h that freeze and thaw a file system.
const (
	fiFreeze = 0xc0045877
	fiThaw   = 0xc0045878
)

// A writer on a frozen file system is in state D, and no signal interrupts it. Run returns
// within the limit, reports its pid, and reaps it when the file system thaws.
func TestExecStateD(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	mnt, thaw := frozen(t)

	var log bytes.Buffer
	logged := make(chan struct{})
	h := slog.NewTextHandler(writer(func(p []byte) (int, error) { defer close(logged); return log.Write(p) }), nil)
	e := &Exec{Log: slog.New(h)}
	var ce *CommandError
	bounded(t, 1200*time.Millisecond, func() {
		_, err := e.Run(t.Context(), Command{Argv: []string{"touch", mnt + "/x"}, Timeout: 200 * time.Millisecond})
		if !errors.As(err, &ce) || !ce.TimedOut || ce.PID == 0 || !errors.Is(err, errSurvived) {
			t.Fatalf("got %v", err)
		}
	})
	if !strings.Contains(ce.Error(), "error: still running after SIGKILL as pid ") || !strings.Contains(ce.Error(), "(time limit of 200ms reached)") {
		t.Error(ce)
	}
	// Other commands are not delayed.
	if _, err := e.Run(t.Context(), Command{Argv: []string{"true"}, Timeout: time.Second}); err != nil {
		t.Error("another command:", err)
	}
	thaw()
	select {
	case <-logged:
	case <-time.After(10 * time.Second):
		t.Fatal("it was never reaped")
	}
	if err := unix.Kill(ce.PID, 0); err != unix.ESRCH {
		t.Error("the process still exists:", err)
	}
	if !strings.Contains(log.String(), "signal: killed") && !strings.Contains(log.String(), "signal: terminated") {
		t.Errorf("log: %s", log.String())
	}
}
