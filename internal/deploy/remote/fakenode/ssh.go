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

// Variable is the environment variable that tells the fake ssh where the nodes are.
const Variable = "FAKENODE_DIR"

// SSH returns the path of the fake ssh of the fleet. It runs the test binary, which must
// call Main first if Asked.
func (f *Fleet) SSH() string {
	f.t.Helper()
	exe, err := os.Executable()
	f.check(err)
	path := filepath.Join(f.Dir, ".ssh")
	f.check(executable.Write(path, []byte("#!/bin/sh\n"+Variable+"='"+f.Dir+"' exec '"+exe+"' \"$@\"\n")))
	return path
}

// Asked reports whether this process is called as ssh.
func Asked() bool { return os.Getenv(Variable) != "" }

// Tests runs the tests, or is ssh.
func Tests(m *testing.M) {
	if Asked() {
		Main()
	}
	os.Exit(m.Run())
}

// Main is the fake ssh: it runs the command in the node's directory. The fault of a node is
// one of:
//
//	dead, hostkey, denied   no connection, as ssh says it
//	sudo                    the login does not become root
//	cut BYTES               the connection breaks after so much was sent
//	break WORD              it breaks after the node has sent WORD
//	hold WORD               nothing arrives after WORD, until the test ends it
//	slow MILLISECONDS       every connection takes so long
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

// serve runs the command in a shell, as sshd does. It replaces the first lines of the
// script, which set the root directory and PATH.
func serve(root, dir, command, fault, value string) {
	in := bufio.NewReader(os.Stdin)
	command = strings.Replace(command, "sudo -n ", "", 1)

	cmd := exec.Command("/bin/sh", "-c", command)
	cmd.Env = []string{"PATH=/usr/bin:/bin"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // the end of ssh sends no signal to the node
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
		if fault == "cut" {
			n, _ := strconv.ParseInt(value, 10, 64)
			_, _ = io.CopyN(feed, in, n)
			die("client_loop: send disconnect: Broken pipe")
		}
		_, _ = io.Copy(feed, in)
	}()
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if fault == "break" && says(line, value) {
			die("client_loop: send disconnect: Broken pipe")
		}
		_, _ = os.Stdout.WriteString(line)
		if fault == "hold" && says(line, value) {
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

// says reports whether a line of the answer is this word, after the marker and the
// length.
func says(line, word string) bool { return strings.HasSuffix(strings.TrimSpace(line), " "+word) }
