package fakenode

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote"
	"github.com/compute-daemons/compute-daemons/internal/e2e/executable"
)

// Variable is the environment variable with the directory of the nodes, for the fake ssh.
const Variable = "FAKENODE_DIR"

// NodeVariable is the environment variable with the directory of the node, in the processes of a
// session.
const NodeVariable = "FAKENODE_ROOT"

// SSH returns the path of the fake ssh of the fleet. It runs the test binary, which must
// first call Main if IsSSH returns true.
func (f *Fleet) SSH() string {
	f.t.Helper()
	path, err := WriteSSH(f.Dir)
	f.check(err)
	return path
}

// WriteSSH writes the fake ssh for a directory with nodes, and returns its path.
func WriteSSH(dir string) (path string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	path = filepath.Join(dir, ".ssh")
	return path, executable.Write(path, []byte("#!/bin/sh\n"+Variable+"='"+dir+"' exec '"+exe+"' \"$@\"\n"))
}

// IsSSH reports whether this process was started as the fake ssh.
func IsSSH() bool { return os.Getenv(Variable) != "" }

// RunTests runs the tests, or the fake ssh.
func RunTests(m *testing.M) {
	if IsSSH() {
		Main()
	}
	os.Exit(m.Run())
}

// Main is the fake ssh. It runs the command in the directory of the node. The fault of a
// node is one of:
//
//	dead, hostkey, denied   no connection, with the message of ssh
//	sudo                    sudo fails
//	cut BYTES               the connection breaks after BYTES of input were sent
//	stall BYTES             nothing arrives after BYTES of input, until ssh notices it after 2 s
//	reap BYTES              all processes of the session are killed after BYTES of input
//	break WORD              it breaks after the node has sent WORD
//	hold WORD               nothing arrives after WORD, until the test kills ssh
//	slow MILLISECONDS       every connection takes MILLISECONDS longer
func Main() {
	dir, args := os.Getenv(Variable), os.Args[1:]
	i := slices.Index(args, "--")
	if i < 0 || len(args) != i+3 {
		die("ssh: wrong arguments %q", args)
	}
	node, command := args[i+1], args[i+2]
	if f, err := os.OpenFile(filepath.Join(dir, ".calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintf(f, "%q\n", args)
		f.Close()
	}
	data, _ := os.ReadFile(filepath.Join(dir, node+".fault"))
	fault, value, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	switch fault {
	case "dead":
		die("ssh: connect to host %s port 22: Connection refused", node)
	case "hostkey":
		die("@@@@@@@@@@@\n@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n@@@@@@@@@@@\nHost key for %s has changed and you have requested strict checking.\nHost key verification failed.", node)
	case "denied":
		die("root@%s: Permission denied (publickey).", node)
	case "sudo":
		fmt.Fprintln(os.Stderr, "sudo: a password is required")
		os.Exit(1)
	case "slow":
		ms, _ := strconv.Atoi(value)
		time.Sleep(time.Duration(ms) * time.Millisecond) // the duration is the fault
	}
	root := filepath.Join(dir, node)
	if _, err := os.Stat(root); err != nil {
		die("ssh: Could not resolve hostname %s: Name or service not known", node)
	}
	serve(root, dir, command, fault, value)
}

func die(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
	os.Exit(255)
}

// serve runs the command in a shell, as sshd does. It changes the first lines of the script,
// which set the root directory and PATH.
func serve(root, dir, command, fault, value string) {
	in := bufio.NewReader(os.Stdin)
	command = strings.Replace(command, "sudo -n ", "", 1)

	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=/usr/bin:/bin", NodeVariable + "=" + root}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a signal to ssh does not reach the node
	feed, err := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err, err2); err != nil {
		die("ssh: %v", err)
	}
	if err := cmd.Start(); err != nil {
		die("ssh: %v", err)
	}
	go func() {
		defer feed.Close()
		script, err := remote.ReadFrame(in, func(text string) string {
			return strings.Replace(text, "R=\nPATH=", "R='"+root+"'\nPATH='"+dir+"/.bin':", 1)
		})
		if err != nil && !errors.Is(err, io.EOF) {
			die("ssh: %v", err)
		}
		if _, err := feed.Write(script); err != nil {
			return
		}
		n, _ := strconv.ParseInt(value, 10, 64)
		switch fault {
		case "cut", "stall", "reap":
			if _, err := io.CopyN(feed, in, n); err != nil {
				return // the input is shorter
			}
		}
		switch fault {
		case "cut":
			die("client_loop: send disconnect: Broken pipe")
		case "stall":
			time.Sleep(2 * time.Second) // the duration is the fault
			die("Timeout, server not responding.")
		case "reap":
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // the leader of the session
		}
		_, _ = io.Copy(feed, in)
	}()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if fault == "break" && isWord(line, value) {
			die("client_loop: send disconnect: Broken pipe")
		}
		_, _ = os.Stdout.WriteString(line)
		if fault == "hold" && isWord(line, value) {
			select {}
		}
		if err != nil {
			break
		}
	}
	exit := (*exec.ExitError)(nil)
	if err := cmd.Wait(); errors.As(err, &exit) {
		os.Exit(exit.ExitCode())
	} else if err != nil {
		die("ssh: %v", err)
	}
	os.Exit(0)
}

// isWord reports whether a line of the answer consists of word, after the marker and the
// length.
func isWord(line, word string) bool { return strings.HasSuffix(strings.TrimSpace(line), " "+word) }
