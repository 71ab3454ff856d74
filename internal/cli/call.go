package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Process is the environment of a call: variables, standard streams and signals.
type Process struct {
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Signals <-chan os.Signal // SIGINT, SIGTERM, SIGHUP; may be nil
}

// ThisProcess returns the environment of the running process.
func ThisProcess() Process {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	return Process{os.Environ(), os.Stdin, os.Stdout, os.Stderr, signals}
}

// Call is one run of a command.
type Call struct {
	Process
	Program string // the name in front of each line on standard error
	Args    []string
	Code    int // the exit code if the command returns no error

	given   func(flag string) bool
	formats []string // of the command
}

func (c *Call) base() *Call { return c }

// Given reports whether a flag is on the command line.
func (c *Call) Given(flag string) bool { return c.given(flag) }

// CheckFormat returns a usage error if the value of --output is neither one of the formats of all
// commands nor one of the command.
func (c *Call) CheckFormat(value string, all []string) error {
	return CheckWord("output", value, slices.Concat(all, c.formats))
}

// Getenv returns an environment variable, or "". If a name is repeated, the last value
// applies.
func (c *Call) Getenv(name string) string {
	value := ""
	for _, kv := range c.Environ {
		if k, v, ok := strings.Cut(kv, "="); ok && k == name {
			value = v
		}
	}
	return value
}

// Say prints a line to standard error.
func (c *Call) Say(format string, args ...any) {
	fmt.Fprintf(c.Stderr, "%s: %s\n", c.Program, fmt.Sprintf(format, args...))
}

// Explain prints an error, and its hint if it has one, to standard error.
func (c *Call) Explain(err error) { hint.Write(c.Stderr, "", c.Program, err) }

// Stopped is the error of a call that was ended by a signal.
type Stopped struct {
	Verb   string // the effect of the signal, for the message; "": ended
	Signal syscall.Signal
}

func (s *Stopped) Error() string {
	verb := s.Verb
	if verb == "" {
		verb = "ended"
	}
	return verb + " by " + unix.SignalName(s.Signal)
}

// StoppedBy returns the error for a signal.
func StoppedBy(verb string, s os.Signal) *Stopped {
	n, _ := s.(syscall.Signal)
	return &Stopped{verb, n}
}

// Interruptible returns a context that is cancelled by a signal, with a *Stopped as
// cause.
func (c *Call) Interruptible(ctx context.Context, verb string) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case s := <-c.Signals:
			cancel(StoppedBy(verb, s))
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// Interrupted returns the *Stopped that has cancelled ctx, or err.
func Interrupted(ctx context.Context, err error) error {
	if s := (*Stopped)(nil); err != nil && errors.As(context.Cause(ctx), &s) {
		return s
	}
	return err
}

// Exit codes of every program. They are documented and never change their
// meaning.
const (
	ExitOK     = 0
	ExitFailed = 1
	ExitUsage  = 2
	ExitSignal = 128 // plus the number of the signal
)

// ExitOf returns the exit code for an error without a special exit code.
func ExitOf(err error) int {
	var s *Stopped
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &s):
		return ExitSignal + int(s.Signal)
	}
	return ExitFailed
}
