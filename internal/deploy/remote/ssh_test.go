package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program writes a stand-in for ssh: a shell script that gets its arguments.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ssh")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// command finds what ssh is to run: the last argument.
const command = "for last; do :; done\n"

func TestArguments(t *testing.T) {
	for _, tt := range []struct {
		ssh  SSH
		want []string // parts that have to be there, in this order
	}{
		{SSH{}, []string{"-o BatchMode=yes", "-o ConnectTimeout=10", "-- compute-01 exec sh -c"}},
		{SSH{Connect: 1500 * time.Millisecond}, []string{"-o ConnectTimeout=2"}},
		{SSH{User: "admin", Sudo: true}, []string{"-l admin -- compute-01 exec sudo -n sh -c"}},
		{SSH{Options: []string{"-F/x y", "ConnectTimeout=3", "-v"}}, []string{"-F/x y -o ConnectTimeout=3 -v", "-o ConnectTimeout=10"}},
	} {
		text := strings.Join(tt.ssh.arguments("compute-01", Script{Text: "true"}), " ")
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

// The script and what it is given arrive as they are, whatever is in them, and
// nothing of them is on a command line.
func TestRun(t *testing.T) {
	log := filepath.Join(t.TempDir(), "log")
	s := &SSH{Program: program(t, `printf '%s\n' "$@" >`+log+"\n"+command+`exec /bin/sh -c "$last"`)}
	script := Script{Text: "# $(x) 'y' \"z\" `w`\ncat; echo 'done'; echo \"err\" >&2\n\n"}
	stdin := "first\n\x00\xff $(touch /x) '\"\n" + strings.Repeat("x", 200_000)
	var out bytes.Buffer
	if err := s.Run(t.Context(), "compute-01", script, strings.NewReader(stdin), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != stdin+"done\n" {
		t.Errorf("%d bytes came back: %.60q", out.Len(), out.String())
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if args := strings.Split(strings.TrimSpace(string(data)), "\n"); !slices.Equal(args[len(args)-3:], []string{"--", "compute-01", fmt.Sprintf(`exec sh -c 'eval "$(dd bs=1 count=%d 2>/dev/null)"'`, len(script.Text))}) {
		t.Errorf("%q", args)
	}
}

// Login shells differ: none of these may stumble over the command.
func TestLoginShells(t *testing.T) {
	for _, shell := range []string{"sh", "bash", "dash", "busybox sh", "zsh", "csh", "tcsh", "fish", "ksh"} {
		words := strings.Fields(shell)
		if _, err := os.Stat("/bin/" + words[0]); err != nil {
			if words[0] == "sh" || words[0] == "bash" {
				t.Error(err)
			}
			t.Logf("%s is not here", words[0])
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
	for _, tt := range []struct {
		name, program string
		kind          Kind
		text, hint    string
	}{
		{"dead", `echo 'ssh: connect to host x port 22: Connection refused' >&2; exit 255`, Unreachable, "ssh: connect to host x port 22: Connection refused", "sshd is not"},
		{"away", `echo 'ssh: connect to host x port 22: No route to host' >&2; exit 255`, Unreachable, "No route", "is the node up?"},
		{"late", `echo 'ssh: connect to host x port 22: Connection timed out' >&2; exit 255`, Unreachable, "timed out", "is the node up?"},
		{"unknown", `echo 'ssh: Could not resolve hostname x: Name or service not known' >&2; exit 255`, Unreachable, "Could not resolve", "DNS"},
		{"host key", `printf 'IT IS POSSIBLE\nHost key verification failed.\n' >&2; exit 255`, HostKey, "Host key verification failed.", "known_hosts"},
		{"key", `printf 'banner\nroot@x: Permission denied (publickey).\n' >&2; exit 255`, Denied, "root@x: Permission denied (publickey).", "try: ssh x true"},
		{"sudo", `echo 'sudo: a password is required' >&2; exit 1`, Root, "a password is required", "NOPASSWD"},
		{"option", `echo 'command-line: line 0: Bad configuration option: nonsense' >&2; exit 255`, Program, "Bad configuration option", "--ssh-option"},
		{"something else", `echo 'kex_exchange_identification: read: Connection reset by peer' >&2; exit 255`, Unreachable, "kex_exchange", "try: ssh x true"},
		{"broken", `echo begun; exit 255`, Lost, "", "run it again"},
		{"the script", `echo begun; printf 'one\ntwo\n' >&2; exit 3`, Failed, "two", ""},
		{"silent", `exit 3`, Failed, "", ""},
		{"killed", `kill -9 $$`, Lost, "signal: killed", "run it again"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &SSH{Program: program(t, tt.program)}
			err := s.Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard)
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

// What a chatty ssh says is not kept for ever.
func TestStandardErrorIsBounded(t *testing.T) {
	s := &SSH{Program: program(t, `i=0; while [ $i -lt 2000 ]; do echo "line $i of a long story, and on it goes" >&2; i=$((i+1)); done; exit 3`)}
	err := s.Run(t.Context(), "x", Script{Text: "true"}, nil, io.Discard)
	if e := (*Error)(nil); !errors.As(err, &e) || e.Text != "line 1999 of a long story, and on it goes" {
		t.Errorf("%v", err)
	}
}

// Ctrl-C on the terminal is not for ssh; the end of the context is, also for one
// that does not listen.
func TestTheEnd(t *testing.T) {
	for _, deaf := range []string{"", "trap '' TERM\n"} {
		ready := filepath.Join(t.TempDir(), "pid")
		s := &SSH{Program: program(t, deaf+"echo $$ >"+ready+".new && mv "+ready+".new "+ready+"\nwhile :; do sleep 0.1; done")}
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error, 1)
		go func() { failed <- s.Run(ctx, "x", Script{Text: "true"}, nil, io.Discard) }()
		var data []byte
		for end := time.Now().Add(20 * time.Second); len(data) == 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			data, _ = os.ReadFile(ready)
		}
		pid := 0
		for _, c := range strings.TrimSpace(string(data)) {
			pid = pid*10 + int(c-'0')
		}
		if group, err := syscall.Getpgid(pid); err != nil || group != pid {
			t.Errorf("group %d of %d: %v", group, pid, err)
		}
		cancel(errors.New("enough"))
		err := <-failed
		if e := (*Error)(nil); !errors.As(err, &e) || e.Kind != Ended || e.Text != "enough" {
			t.Errorf("%v", err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("it still runs: %v", err)
		}
	}
}
