package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// program writes a fake ssh: a shell script.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ssh")
	if err := executable.Write(path, []byte("#!/bin/sh\n"+text)); err != nil {
		t.Fatal(err)
	}
	return path
}

// command sets $last to the last argument of ssh, the command to run.
const command = "for last; do :; done\n"

func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		ssh  SSH
		want []string // required parts, in this order
	}{
		{SSH{}, []string{"-o BatchMode=yes", "-o ConnectTimeout=10", "-- compute-01 exec sh -c"}},
		{SSH{Connect: 1500 * time.Millisecond}, []string{"-o ConnectTimeout=2"}},
		{SSH{User: "admin", Sudo: true}, []string{"-l admin -- compute-01 exec sudo -n sh -c"}},
		{SSH{Options: []string{"-F/x y", "ConnectTimeout=3", "-v"}}, []string{"-F/x y -o ConnectTimeout=3 -v", "-o ConnectTimeout=10"}},
	} {
		text := strings.Join(tt.ssh.arguments("compute-01", session{"0123"}), " ")
		rest := text
		for _, part := range tt.want {
			_, after, found := strings.Cut(rest, part)
			if !found {
				t.Errorf("%q is not in %q", part, text)
			}
			rest = after
		}
	}
}

// The script and its input arrive unchanged, whatever they contain, and are not on a command
// line.
func TestRun(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s := &SSH{Program: program(t, `printf '%s\n' "$@" >`+log+"\n"+command+`exec /bin/sh -c "$last"`)}
	script := Script{Text: "# $(x) 'y' \"z\" `w`\nsha256sum; printf '  a\\tb \\\\n $x\\n\\nlast'; echo \"err\" >&2\n\n"}
	stdin := "first\n\x00\xff $(touch /x) '\"\n" + strings.Repeat("x", 200_000)
	var out bytes.Buffer
	if err := s.Run(t.Context(), "compute-01", script, strings.NewReader(stdin), &out); err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("%x  -\n  a\tb \\n $x\n\nlast\n", sha256.Sum256([]byte(stdin))); out.String() != want {
		t.Errorf("%q was returned, want %q", out.String(), want)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	line := string(data)
	if at := strings.Index(line, "exec sh -c 'n="); at < 0 || !strings.HasPrefix(line[at-len("--\ncompute-01\n"):], "--\ncompute-01\n") || strings.Contains(line, "touch") || strings.Contains(line, "sha256sum; printf") {
		t.Errorf("%q", line)
	}
}

// The command is one word in single quotes in every shell, including csh and fish, and does
// not contain the marker in the form that the node prints.
func TestCommandInEveryShell(t *testing.T) {
	in, err := newSession()
	if err != nil {
		t.Fatal(err)
	}
	text := in.command(false)
	inner, ok := strings.CutPrefix(text, "exec sh -c '")
	inner, end := strings.CutSuffix(inner, "'")
	if !ok || !end || strings.ContainsAny(inner, "'!\\\n") || strings.Contains(text, in.marker()) || len(text) > 1000 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
}

// Each of these login shells runs the command.
func TestLoginShells(t *testing.T) {
	for _, shell := range []string{"sh", "bash", "dash", "busybox sh", "zsh", "csh", "tcsh", "fish", "ksh"} {
		words := strings.Fields(shell)
		if _, err := os.Stat("/bin/" + words[0]); err != nil {
			if words[0] == "sh" || words[0] == "bash" {
				t.Error(err)
			}
			t.Logf("%s is not installed", words[0])
			continue
		}
		s := &SSH{Program: program(t, command+"exec "+shell+` -c "$last"`)}
		var out bytes.Buffer
		if err := s.Run(t.Context(), "x", Script{Text: "read -r line; echo \"got $line\"\n"}, strings.NewReader("it\n"), &out); err != nil || out.String() != "got it\n" {
			t.Errorf("%s: %q %v", shell, out.String(), err)
		}
	}
}

func TestErrors(t *testing.T) {
	const run = command + `exec sh -c "$last"`
	for _, tt := range []struct {
		name, program, script string
		kind                  Kind
		text, hint            string
	}{
		{"connection refused", `echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255`, "true", Unreachable, "ssh: connect to host x port 22: Connection refused", "sshd does not run"},
		{"no route", `echo 'ssh: connect to host x port 22: No route to host' >&2; exit 255`, "true", Unreachable, "No route", "check that the node is up"},
		{"timeout", `echo 'ssh: connect to host x port 22: Connection timed out' >&2; exit 255`, "true", Unreachable, "timed out", "check that the node is up"},
		{"unknown name", `echo 'ssh: Could not resolve hostname x: Name or service not known' >&2; exit 255`, "true", Unreachable, "Could not resolve", "DNS"},
		{"host key", `printf 'IT IS POSSIBLE\nHost key verification failed.\n' >&2; exit 255`, "true", HostKey, "Host key verification failed.", "known_hosts"},
		{"key", `printf 'banner\nroot@x: Permission denied (publickey).\n' >&2; exit 255`, "true", Denied, "root@x: Permission denied (publickey).", "check that ssh x true"},
		{"sudo", `echo 'sudo: a password is required' >&2; exit 1`, "true", Root, "a password is required", "NOPASSWD"},
		{"option", `echo 'command-line: line 0: Bad configuration option: nonsense' >&2; exit 255`, "true", Program, "Bad configuration option", "--ssh-option"},
		{"closed before the login", `echo 'kex_exchange_identification: read: Connection reset by peer' >&2; exit 255`, "true", Unreachable, "kex_exchange", "check that ssh x true"},
		{"broken connection", command + `sh -c "$last"; exit 255`, "kill -9 $PPID; echo x", Lost, "", "run the command again"},
		{"truncated", command + `sh -c "$last" | grep --line-buffered -v ' exit '; exit 0`, "echo x", Lost, "truncated", "run the command again"},
		{"missing line", command + `sh -c "$last" | grep --line-buffered -v ' second$'; exit 0`, "echo first; echo second", Disturbed, "1 of 2 lines arrived", "start-up files"},
		{"failed script", run, "echo started; printf 'one\ntwo\n' >&2; exit 3", Failed, "two", ""},
		{"failed script with exit code 255", run, "exit 255", Failed, "", ""},
		{"failed script without a message", run, "exit 3", Failed, "", ""},
		{"no login", `echo 'This account is currently not available.'; exit 1`, "true", NoShell, "exit code 1; it printed: This account is currently not available.", "ssh x true"},
		{"start-up files exit the shell", `exit 0`, "true", NoShell, "exit code 0", "ssh x true"},
		{"no sh", `echo 'fish: Unknown command: sh' >&2; exit 127`, "true", Failed, "Unknown command", "a basic program"},
		{"no dd", command + `mkdir $0.bin; for p in sh sha256sum; do ln -s "$(command -v $p)" $0.bin; done
			PATH=$0.bin exec sh -c "$(echo "$last" | sed "s/^exec sh -c '//; s/'\$//; s|PATH=[^;]*;|PATH=$0.bin;|")"`, "true", Failed, "dd is missing on this node", ""},
		{"killed", `kill -9 $$`, "true", Lost, "signal: killed", "run the command again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &SSH{Program: program(t, tt.program)}
			err := s.Run(t.Context(), "x", Script{Text: tt.script}, nil, io.Discard)
			e := (*Error)(nil)
			if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(e.Text, tt.text) || !strings.Contains(e.Hint, tt.hint) || e.Error() == "" {
				t.Errorf("%#v", err)
			}
		})
	}
	err := (&SSH{Program: "/nonexistent/ssh"}).Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Program {
		t.Errorf("%#v", err)
	}
}

// Only a bounded part of the standard error of ssh is kept.
func TestStandardErrorIsBounded(t *testing.T) {
	s := &SSH{Program: program(t, command+`exec sh -c "$last"`)}
	err := s.Run(t.Context(), "x", Script{Text: `i=0; while [ $i -lt 2000 ]; do echo "line $i of many" >&2; i=$((i+1)); done; exit 3`}, nil, io.Discard)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Text != "line 1999 of many" {
		t.Errorf("%v", err)
	}
}

// Ctrl-C on the terminal does not reach ssh. When the context is done, Run stops ssh, even if
// it ignores SIGTERM.
func TestContextStopsSSH(t *testing.T) {
	for _, trap := range []string{"", "trap '' TERM\n"} {
		ready := filepath.Join(t.TempDir(), "pid")
		s := &SSH{Program: program(t, trap+"echo $$ >"+ready+".new && mv "+ready+".new "+ready+"\nwhile :; do sleep 0.1; done")}
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- s.Run(ctx, "x", Script{Text: "true"}, nil, io.Discard) }()
		var data []byte
		wait.Until(t, "the start of ssh", func() bool {
			data, _ = os.ReadFile(ready)
			return len(data) > 0
		})
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			t.Fatal(err)
		}
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("group %d of %d: %v", group, pid, err)
		}
		cancel(errors.New("enough"))
		err = <-failed
		if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Interrupted || e.Text != "enough" {
			t.Errorf("%v", err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("ssh still runs: %v", err)
		}
	}
}

// A shared connection (ControlPersist) may keep the output of ssh open after ssh has exited. Run
// does not wait for it.
func TestOutputStaysOpen(t *testing.T) {
	file := filepath.Join(t.TempDir(), "pid")
	s := &SSH{Program: program(t, "sleep 1000 &\necho $! >"+file+"\necho 'ssh: connect to host x port 22: Connection refused' >&2\nexit 255\n")}
	err := s.Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard)
	data, rerr := os.ReadFile(file)
	pid, cerr := strconv.Atoi(strings.TrimSpace(string(data)))
	if err := errors.Join(rerr, cerr); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Errorf("Run has waited for the process that has the output open: %v", err)
	}
	if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Unreachable {
		t.Errorf("%v", err)
	}
}

// If this host has no free process or open file, ssh starts when other sessions have ended. The
// error names the limit.
func TestLimitOfHost(t *testing.T) {
	for _, tt := range []struct {
		err    error
		fails  int
		starts int
		want   string
	}{
		{syscall.EAGAIN, 3, 4, ""},
		{syscall.EMFILE, 3, 4, ""},
		{syscall.EAGAIN, 1000, 17, "ulimit -u"},
		{syscall.EMFILE, 1000, 17, "ulimit -n"},
		{syscall.ENFILE, 1000, 17, "fs.file-max"},
		{syscall.ENOENT, 1000, 1, "PATH"},
	} {
		synctest.Test(t, func(t *testing.T) {
			starts := 0
			s := &SSH{Start: func(_ context.Context, _ string, _ []string, _, stderr io.Writer) (io.WriteCloser, func() (int, error), error) {
				if starts++; starts <= tt.fails {
					return nil, nil, fmt.Errorf("fork/exec ssh: %w", tt.err)
				}
				_, stdin := io.Pipe()
				return stdin, func() (int, error) {
					fmt.Fprintln(stderr, "ssh: connect to host x port 22: Connection refused")
					return 255, nil
				}, nil
			}}
			e, ok := s.Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard).(*Error)
			if !ok || starts != tt.starts {
				t.Fatalf("%v: %v after %d starts, want %d", tt.err, e, starts, tt.starts)
			}
			if tt.want == "" && e.Kind != Unreachable || tt.want != "" && (e.Kind != Program || !strings.Contains(e.Hint, tt.want)) {
				t.Errorf("%v: %v (%s)", tt.err, e, e.Hint)
			}
		})
	}
}
