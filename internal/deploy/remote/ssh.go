// Package remote runs the program's own scripts on nodes with the administrator's ssh and
// its configuration: names, keys, agent, jump hosts, shared connections.
//
// Only constant text of this program becomes part of a command line on a node. The scripts,
// and everything variable, are sent on standard input.
//
// It must not depend on what the scripts do.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Script is one of the program's own shell scripts.
type Script struct {
	Name string // for messages
	Text string // POSIX shell; it must not be empty and must not use $m
}

// Shell runs a script on a node, with stdin as its input. It writes the lines that the
// script prints to stdout, without the output of other programs. It returns when the script
// has exited, even if stdin has not been read to its end. Each error is an *Error.
type Shell interface {
	Run(ctx context.Context, node string, s Script, stdin io.Reader, stdout io.Writer) error
}

// SSH is the Shell that runs the administrator's ssh.
type SSH struct {
	Program string        // "": ssh
	Options []string      // arguments; those that do not start with "-" are options of ssh_config(5)
	User    string        // login name; "": as in ssh_config
	Sudo    bool          // become root with sudo
	Connect time.Duration // limit for the connection; 0: 10s
	Login   time.Duration // usual limit from then until the login shell runs the command; 0: 20s
	Start   Start         // how ssh is started; nil: as a process
}

// arguments returns the arguments of ssh. The administrator's options precede ours, because
// ssh uses the first value of each option.
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
		"-o", "BatchMode=yes", // prompts of many nodes could not be answered
		"-o", fmt.Sprintf("ConnectTimeout=%d", int(connect.Seconds()+0.999)),
		"-o", "ServerAliveInterval=15", "-o", "ServerAliveCountMax=4", // detect a node that goes down
		"-o", "ClearAllForwardings=yes", // forwardings are for interactive logins
	)
	if s.User != "" {
		args = append(args, "-l", s.User)
	}
	return append(args, "--", node, in.command(s.Sudo))
}

// limits returns the limits for connection and login.
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

// The causes for stopping an ssh whose login shell has not run the command, or the script.
var (
	errLogin    = errors.New("the login shell did not run the command")
	errConsumed = errors.New("another program reads the input")
	errScript   = errors.New("the script did not start")
)

// busyLimit is how long start retries if this host has no free process or open file.
const busyLimit = time.Minute

// start starts ssh for one session. If a limit of this host is reached, it waits for other sessions
// to end.
func (s *SSH) start(ctx context.Context, node string, in session, stdout, stderr io.Writer) (io.WriteCloser, func() (int, error), error) {
	start, program := s.Start, s.Program
	if start == nil {
		start = startProcess
	}
	if program == "" {
		program = "ssh"
	}
	for first, delay := time.Now(), 100*time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		stdin, wait, err := start(ctx, program, s.arguments(node, in), stdout, stderr)
		if !isLimit(err) || time.Since(first)+delay > busyLimit || await(ctx.Done(), nil, delay) {
			return stdin, wait, err
		}
	}
}

// Run implements Shell.
func (s *SSH) Run(ctx context.Context, node string, script Script, stdin io.Reader, stdout io.Writer) error {
	in, err := newSession()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answer := newAnswer(in, stdout)
	stderr := &tail{limit: 8 << 10}
	feed, wait, err := s.start(ctx, node, in, answer, stderr)
	if err != nil {
		return noProgram(node, err)
	}
	connect, login := s.limits()
	limit := connect + login
	exited, fed := make(chan struct{}), make(chan struct{})
	unsent := false // the script did not start in time, so its input was not sent
	go func() {
		defer close(fed)
		defer feed.Close()
		if !await(answer.ready, exited, limit) {
			if closed(exited) {
				return
			}
			if cause := s.second(ctx, node, answer.ready, exited, limit); cause != nil {
				cancel(cause)
				return
			}
			if closed(exited) {
				return
			}
		}
		if _, err := feed.Write(in.frame(script)); err != nil {
			return // ssh has exited and reports the reason
		}
		// Send the input only when the script reads it. If another program has read a part of the
		// script, the end of the input makes the command report it. If the script starts all the
		// same, it takes the missing input for an empty one, so its answer does not count.
		if !await(answer.started, exited, limit) {
			if closed(exited) {
				return
			}
			unsent = true
			feed.Close()
			if !await(exited, nil, limit) {
				cancel(errScript)
			}
			return
		}
		if stdin == nil {
			return
		}
		go func() { // returns when stdin ends or ssh exits
			defer feed.Close()
			_, _ = io.Copy(feed, stdin) // if this fails, the script fails and reports the reason
		}()
		<-exited
	}()
	code, err := wait()
	close(exited)
	<-fed
	switch {
	case ctx.Err() != nil && context.Cause(ctx) == errLogin:
		return answer.notStarted(node, 2*limit)
	case ctx.Err() != nil && context.Cause(ctx) == errConsumed:
		return answer.consumed(node)
	case ctx.Err() != nil && context.Cause(ctx) == errScript, unsent && closed(answer.started):
		return answer.notSent(node, limit)
	case ctx.Err() != nil:
		return &Error{Node: node, Kind: Interrupted, Text: context.Cause(ctx).Error()}
	case err != nil:
		return &Error{Node: node, Kind: Lost, Text: err.Error(), Hint: rerunHint}
	}
	return answer.result(node, code, stderr.String())
}

// second finds out why the command of a session has not started within limit: the login is slow,
// or its start-up files wait for input. A second login without input distinguishes the two cases,
// however busy the node and this host are. If it finishes while the first one, which had limit more
// time, still waits, the first one waits for input. second returns nil if the first session is
// ready or has exited, or else the cause for stopping it.
func (s *SSH) second(ctx context.Context, node string, ready, exited <-chan struct{}, limit time.Duration) error {
	in, err := newSession()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := newAnswer(in, io.Discard)
	feed, wait, err := s.start(ctx, node, in, answer, io.Discard)
	if err != nil {
		return errLogin
	}
	feed.Close()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = wait() // only whether the command has started counts
	}()
	defer func() {
		cancel()
		<-ended
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ready:
	case <-exited:
	case <-answer.ready:
		// The first session may become ready at the same time.
		if !await(ready, exited, limit/4) && !closed(exited) {
			return errConsumed
		}
	case <-timer.C:
		if !closed(ready) {
			return errLogin
		}
	}
	return nil
}

// await reports whether event is closed within limit, and before exited.
func await(event, exited <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-event:
		return true
	case <-exited:
		return false
	case <-timer.C:
		return closed(event)
	}
}

// tail keeps the last limit bytes that are written to it.
type tail struct {
	limit int
	data  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.data.Write(p)
	if excess := t.data.Len() - t.limit; excess > 0 {
		t.data.Next(excess)
	}
	return len(p), nil
}

func (t *tail) String() string { return t.data.String() }
