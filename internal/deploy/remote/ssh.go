// Package remote runs the program's own scripts on nodes through the administrator's ssh
// and its configuration: names, keys, agent, jump hosts, shared connections.
//
// Only text of this program ever becomes part of a command line on a node: the scripts,
// and everything that varies, are sent on standard input.
//
// It must not know what the scripts do.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// Script is one of the program's own shell scripts.
type Script struct {
	Name string // for messages
	Text string // POSIX shell; it must not be empty and must not use $m
}

// Shell runs a script on a node with stdin as its input. It writes the lines that the
// script prints to stdout, without output of others. It returns when the script has ended,
// even if stdin is not read to its end. Each error is an *Error.
type Shell interface {
	Run(ctx context.Context, node string, s Script, stdin io.Reader, stdout io.Writer) error
}

// SSH is the Shell that calls the administrator's ssh.
type SSH struct {
	Program string   // "": ssh
	Options []string // arguments; one that does not start with "-" is an option of ssh_config(5)
	User    string   // "": as ssh_config says
	Sudo    bool     // become root by sudo
	Connect time.Duration
	Login   time.Duration // from Connect until the login shell runs the command; 0: 20s
}

// How long ssh may take to end after a signal, and the login shell to run the command
// after the end of its input.
const (
	grace = 2 * time.Second
	last  = 5 * time.Second
)

// arguments returns the arguments of ssh, which uses the first value that it gets for an
// option: those of the administrator precede ours.
func (s *SSH) arguments(node string, in session) []string {
	var args []string
	for _, o := range s.Options {
		if !strings.HasPrefix(o, "-") {
			args = append(args, "-o")
		}
		args = append(args, o)
	}
	connect, _ := s.limits()
	args = append(args, "-T", "-x",
		"-o", "BatchMode=yes", // thirty prompts at once could not be answered
		"-o", fmt.Sprintf("ConnectTimeout=%d", int(connect.Seconds()+0.999)),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", // for a node that dies meanwhile
		"-o", "ClearAllForwardings=yes", // forwardings of interactive logins have no use here
	)
	if s.User != "" {
		args = append(args, "-l", s.User)
	}
	return append(args, "--", node, in.command(s.Sudo))
}

// limits returns how long a connection and a login may take.
func (s *SSH) limits() (connect, login time.Duration) {
	connect, login = s.Connect, s.Login
	if connect <= 0 {
		connect = 10 * time.Second
	}
	if login <= 0 {
		login = 20 * time.Second
	}
	return connect, login
}

// errLogin ends an ssh whose login shell never ran the command.
var errLogin = errors.New("the login shell did not run the command")

// Run implements Shell.
func (s *SSH) Run(ctx context.Context, node string, script Script, stdin io.Reader, stdout io.Writer) error {
	program := s.Program
	if program == "" {
		program = "ssh"
	}
	in, err := newSession()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	cmd := exec.CommandContext(ctx, program, s.arguments(node, in)...)
	// A process group of its own: Ctrl-C reaches nnf-deploy, which decides which ssh ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = grace
	heard := newAnswer(in, stdout)
	stderr := &tail{limit: 8 << 10}
	cmd.Stdout, cmd.Stderr = heard, stderr
	feed, err := cmd.StdinPipe() // not cmd.Stdin: Wait would wait for a reader that waits for this function
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return &Error{Node: node, Kind: Program, Text: err.Error(), Hint: "see --ssh and PATH"}
	}
	connect, login := s.limits()
	over, fed := make(chan struct{}), make(chan struct{})
	late := false // the end of the input came before the login shell ran the command
	go func() {
		defer close(fed)
		defer feed.Close()
		if !await(heard.ready, over, connect+login) {
			if closed(over) {
				return
			}
			// A program that reads there gets EOF now, and the command starts after it.
			late = true
			feed.Close()
			if !await(heard.ready, over, last) && !closed(over) {
				cancel(errLogin)
			}
			return
		}
		if _, err := feed.Write(in.frame(script)); err != nil {
			return // ssh has ended, and reports why
		}
		// Only this script gets its input.
		if !await(heard.begun, over, login) || stdin == nil {
			return
		}
		go func() { // ends with its reader or with ssh
			defer feed.Close()
			_, _ = io.Copy(feed, stdin) // if it fails, so does the script, which reports why
		}()
		<-over
	}()
	err = cmd.Wait()
	close(over)
	<-fed
	exit := (*exec.ExitError)(nil)
	switch {
	case ctx.Err() != nil && context.Cause(ctx) == errLogin:
		return heard.noStart(node, connect+login+last)
	case ctx.Err() != nil:
		return &Error{Node: node, Kind: Ended, Text: context.Cause(ctx).Error()}
	case late && closed(heard.ready):
		return heard.consumed(node)
	case err == nil, errors.Is(err, exec.ErrWaitDelay): // a shared connection may keep our pipes
		return heard.judge(node, 0, stderr.String())
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return heard.judge(node, exit.ExitCode(), stderr.String())
	}
	return &Error{Node: node, Kind: Lost, Text: err.Error(), Hint: again}
}

// await reports whether what is closed before over is, and within limit.
func await(what, over <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-what:
		return true
	case <-over:
		return false
	case <-timer.C:
		return closed(what)
	}
}

// tail keeps the end of what is written to it.
type tail struct {
	limit int
	data  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.data.Write(p)
	if over := t.data.Len() - t.limit; over > 0 {
		t.data.Next(over)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.data.String() }
