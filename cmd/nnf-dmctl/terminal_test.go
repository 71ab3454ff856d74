package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client/fakedaemon"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// session is the program on a pseudo-terminal.
type session struct {
	t        *testing.T
	cmd      *exec.Cmd
	terminal *script.Terminal
	stdout   bytes.Buffer
	ended    chan error
}

// startDaemon starts a fake daemon and stops it at the end of the test.
func startDaemon(t *testing.T, old bool) *fakedaemon.Daemon {
	t.Helper()
	dir, err := os.MkdirTemp("", "dm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	d, err := fakedaemon.Start(filepath.Join(dir, "s"), old)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Stop)
	return d
}

// onTerminal starts the program with standard error and input on a terminal of 24
// rows, or on one without a size if it has 0 columns.
func onTerminal(t *testing.T, socket string, columns uint16, environ []string, args ...string) *session {
	t.Helper()
	rows := uint16(24)
	if columns == 0 {
		rows = 0
	}
	s := &session{t: t, terminal: script.OpenTerminal(t, columns, rows), ended: make(chan error, 1)}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s.cmd = &exec.Cmd{
		Path: exe, Args: append([]string{dmctl.Name}, args...),
		Env:   append([]string{"TERM=xterm", "NNF_DM_SOCKET=" + socket, "DW_WORKFLOW_NAME=job"}, environ...),
		Stdin: s.terminal.Screen, Stdout: &s.stdout, Stderr: s.terminal.Screen,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL},
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.terminal.Screen.Close()
	go func() { s.ended <- s.cmd.Wait() }()
	t.Cleanup(func() {
		s.cmd.Process.Kill()
		if shown := s.terminal.Ended(); t.Failed() {
			t.Logf("the terminal: %q", shown[max(0, len(shown)-600):])
		}
	})
	return s
}

// await waits until the terminal has shown a match of the pattern.
func (s *session) await(pattern string) {
	s.t.Helper()
	want := regexp.MustCompile(pattern)
	wait.Until(s.t, "the terminal to show "+pattern, func() bool { return want.MatchString(s.terminal.Shown()) })
}

// awaitCall waits until the daemon has received a call.
func (s *session) awaitCall(d *fakedaemon.Daemon, call string) {
	s.t.Helper()
	wait.Until(s.t, "the call "+call, func() bool { return strings.Contains(strings.Join(d.Log(), "\n"), call) })
}

// press types keys.
func (s *session) press(keys string) {
	s.t.Helper()
	if _, err := io.WriteString(s.terminal.Keyboard, keys); err != nil {
		s.t.Fatal(err)
	}
}

// exits waits for the exit of the program and checks its exit code.
func (s *session) exits(want int) {
	s.t.Helper()
	select {
	case err := <-s.ended:
		s.terminal.Ended()
		code := 0
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		if code != want {
			s.t.Fatalf("exit code %d (%v), want %d", code, err, want)
		}
	case <-time.After(time.Minute):
		s.t.Fatal("the program does not exit")
	}
}

const ctrlC = "\x03"

func TestProgressBar(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
	// State, percent, bar, elapsed time, rate, time left; the message below.
	s.await(`running +50% \[=+>? +\] 2\.\ds  512\.000 MiB/s  2 secs left`)
	s.await(`\nCopied 1\.000 GiB \(50%\) in 2\.000 secs`)
	s.await(`2\.[1-9]s  512`) // the clock continues between the messages of the command
	d.Finish()
	s.exits(0)
	s.await(`success +100% \[=+>?\] 4\.0s`)
	if got := s.stdout.String(); got != "nnf-dm-node-1: success, 4s, 2.000 GiB, 512.000 MiB/s\n" {
		t.Errorf("standard output: %q", got)
	}
}

// On a narrow terminal no line may wrap, because the bar could not be redrawn in place.
func TestNarrowTerminal(t *testing.T) {
	t.Parallel()
	const columns = 40
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, columns, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
	s.await(`50%`)
	s.await(`\nCopied 1\.000 GiB`)
	d.Finish()
	s.exits(0)
	for line := range strings.SplitSeq(regexp.MustCompile(`\x1b\[[0-9]*[A-Za-z]`).ReplaceAllString(s.terminal.Shown(), ""), "\n") {
		if n := len([]rune(strings.TrimRight(line, "\r"))); n > columns {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func TestSeveralCopies(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/ok", "/mnt/hold", "/lus/a/")
	s.await(`1 of 2 ended +75% \[`)
	d.Finish()
	s.exits(0)
	s.await(`2 of 2 ended +100% \[`)
}

// The only escape sequences on the terminal are those of the bar.
func TestNoForeignEscapes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 200, nil, "copy", "--wait", "/mnt/escape", "/lus/a")
	s.exits(1)
	s.await(`\\x1b\]0;owned`)
	own := regexp.MustCompile(`\x1b\[\d*[AJ]`)
	for _, r := range own.ReplaceAllString(s.terminal.Shown(), "") {
		if r < ' ' && r != '\r' && r != '\n' || r >= 0x7f && r < 0xa0 || r == 0x202e {
			t.Errorf("%U on the terminal", r)
		}
	}
}

func TestDumbTerminal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, []string{"TERM=dumb"}, "copy", "--wait", "/mnt/ok", "/lus/a")
	s.exits(0)
	if seen := s.terminal.Shown(); strings.Contains(seen, "\x1b") || !strings.Contains(seen, "nnf-dmctl: nnf-dm-node-1: running 50%") {
		t.Errorf("%q", seen)
	}
}

// A terminal whose size is not set, as on a serial console or in a container, is too
// narrow for a progress bar: nnf-dmctl prints lines.
func TestTerminalWithoutSize(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 0, nil, "copy", "--wait", "/mnt/ok", "/lus/a")
	s.exits(0)
	if seen := s.terminal.Shown(); strings.Contains(seen, "\x1b") || !strings.Contains(seen, "nnf-dmctl: nnf-dm-node-1: running 50%, 2s, 1.000 GiB, 512.000 MiB/s, 2 secs left: Copied") {
		t.Errorf("%q", seen)
	}
}

// The values in a dcp line with a time stamp are shown, with the percentage that the
// daemon reports.
func TestStampedLines(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/stamped", "/lus/a")
	s.await(`running +49% \[=+>? +\] \d\.\ds  1\.346 GiB/s  10 secs left`)
	s.await(`\n\[2026-03-02T08:15:42\] Copied 12\.250 GiB \(49%\)`)
	lines := onTerminal(t, d.Socket, 120, []string{"TERM=dumb"}, "wait", "nnf-dm-node-1")
	lines.await(`running 49%, 1\.96s, 12\.250 GiB, 1\.346 GiB/s, 10 secs left: \[2026`)
	d.Finish()
	s.exits(0)
	lines.exits(0)
}

func TestQuietTerminal(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "--quiet", "/mnt/ok", "/lus/a")
	s.exits(0)
	if seen := s.terminal.Shown() + s.stdout.String(); seen != "" {
		t.Errorf("%q", seen)
	}
}

// The first Ctrl-C detaches and prints how to follow the copy again.
func TestCtrlCDetaches(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
	s.await(`50%`)
	s.press(ctrlC)
	s.await(`nnf-dmctl: detaching; press Ctrl-C again within 3s to cancel`)
	s.exits(130)
	s.await(`nnf-dmctl: error: detached by SIGINT\r\nnnf-dmctl: hint: the copy continues; to follow it again: nnf-dmctl wait nnf-dm-node-1\r\n`)
	if log := strings.Join(d.Log(), "\n"); strings.Contains(log, "Cancel") {
		t.Errorf("the copy was cancelled: %s", log)
	}
	again := onTerminal(t, d.Socket, 120, nil, "wait", "nnf-dm-node-1")
	again.await(`50%`)
	d.Finish()
	again.exits(0)
}

// The second Ctrl-C cancels and waits for the end of the copy.
func TestCtrlCTwiceCancels(t *testing.T) {
	t.Parallel()
	for _, old := range []bool{false, true} {
		d := startDaemon(t, old)
		s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
		s.await(`50%`)
		s.press(ctrlC)
		s.await(`press Ctrl-C again`)
		s.press(ctrlC)
		s.exits(4)
		s.await(`nnf-dmctl: cancelling`)
		s.await(`cancelled +50%`)
		if got := s.stdout.String(); !strings.HasPrefix(got, "nnf-dm-node-1: cancelled") {
			t.Errorf("standard output: %q", got)
		}
	}
}

// A copy that succeeds within the grace time is reported as successful.
func TestCtrlCAndEnd(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
	s.await(`50%`)
	s.press(ctrlC)
	s.await(`press Ctrl-C again`)
	d.Finish()
	s.exits(0)
}

// The third Ctrl-C detaches from a copy that takes long to cancel.
func TestCtrlCThreeTimes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/stubborn", "/lus/a")
	s.await(`50%`)
	s.press(ctrlC)
	s.await(`press Ctrl-C again`)
	s.press(ctrlC)
	s.await(`cancelling +50%`)
	s.press(ctrlC)
	s.exits(130)
	s.await(`to follow it again: nnf-dmctl wait nnf-dm-node-1`)
}

// Before the daemon has returned an id, the result of the request is unknown.
func TestCtrlCDuringRequest(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, false)
	s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hang", "/lus/a")
	s.awaitCall(d, "/mnt/hang")
	s.press(ctrlC)
	s.exits(130)
	s.await(`nnf-dmctl: error: detached by SIGINT\r\nnnf-dmctl: hint: run nnf-dmctl list to see whether the copy was started`)
}

// Signals at the end of a job do not cancel the copy.
func TestSignalsDetach(t *testing.T) {
	t.Parallel()
	for signal, code := range map[syscall.Signal]int{syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		d := startDaemon(t, false)
		s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", "/mnt/hold", "/lus/a")
		s.await(`50%`)
		if err := s.cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		s.exits(code)
		s.await(`to follow it again: nnf-dmctl wait nnf-dm-node-1`)
		if log := strings.Join(d.Log(), "\n"); strings.Contains(log, "Cancel") {
			t.Errorf("the copy was cancelled: %s", log)
		}
	}
}

// Following continues after a restart of the daemon.
func TestDaemonRestarts(t *testing.T) {
	t.Parallel()
	for _, quiet := range []string{"--quiet=false", "--quiet"} {
		d := startDaemon(t, false)
		s := onTerminal(t, d.Socket, 120, nil, "copy", "--wait", quiet, "/mnt/hold", "/lus/a")
		s.awaitCall(d, "nnf-dm-node-1]")
		d.Stop()
		if err := d.Resume(); err != nil {
			t.Fatal(err)
		}
		d.Finish()
		s.exits(0)
	}
}
