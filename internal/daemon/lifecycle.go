package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// Exit codes. A process that a second signal ended exits with 128 plus the
// signal's number, as shells count it.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// defaultShutdown is for callers that set no limit.
const defaultShutdown = 30 * time.Second

// lifecycle says what a process does from its start to its end. Only Log and Main
// must be set.
type lifecycle struct {
	Log      *slog.Logger
	Notifier *Notifier

	// Main does the work until ctx ends, then lets running steps finish and
	// returns. An error with a method ExitCode() int chooses the exit code.
	Main func(ctx context.Context) error

	// Reload is called on SIGHUP, never twice at a time; signals that come
	// while it runs cause one more call. nil: SIGHUP ends the process.
	Reload func()

	// ShutdownTimeout is how long Main may take after ctx ended. It is called
	// at that time, so that a reload can change it. nil or ≤ 0: 30 s.
	ShutdownTimeout func() time.Duration

	// Left says what is still running, for the message when Main is not
	// waited for any longer. It must not block.
	Left func() string

	Signals <-chan os.Signal // for tests; nil: the process's signals
}

// runLifecycle calls Main and returns the exit code when it has ended. SIGTERM or
// SIGINT ends the ctx of Main. After a second signal, or at the end of the time for
// the shutdown, runLifecycle returns although Main still runs: the caller then ends the
// process. A panic in Main or
// Reload is logged with its stack; a panic in another goroutine cannot be
// caught here.
func runLifecycle(ctx context.Context, o lifecycle) int {
	signals := o.Signals
	if signals == nil {
		var stop func()
		signals, stop = listen(o.Reload != nil)
		defer stop()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r := run{lifecycle: o, cancel: cancel, ended: make(chan error, 1), reloaded: make(chan struct{}, 1)}
	go r.main(ctx)
	return r.loop(ctx, signals)
}

type run struct {
	lifecycle
	cancel   context.CancelCauseFunc
	ended    chan error
	reloaded chan struct{}

	stopping  bool
	limit     time.Duration
	deadline  <-chan time.Time
	reloading bool
	again     bool // reload once more
}

func (r *run) main(ctx context.Context) {
	err := errors.New("main ended without returning")
	defer func() { r.ended <- err }()
	err = Safely(func() error { return r.Main(ctx) })
}

func (r *run) loop(ctx context.Context, signals <-chan os.Signal) int {
	code, mainEnded := ExitOK, false
	done := ctx.Done()
	for !mainEnded || r.reloading {
		select {
		case sig := <-signals:
			switch {
			case sig == syscall.SIGHUP:
				r.requestReload()
			case r.stopping:
				r.Log.Error("second signal, leaving at once", EventID(EventStopForced), "signal", sig.String(), "left", r.left())
				return 128 + signalNumber(sig)
			default:
				r.stop("signal", sig.String())
				r.cancel(signalled{sig})
			}
		case <-done:
			done = nil
			r.stop("cause", context.Cause(ctx).Error())
		case <-r.deadline:
			r.Log.Error("shutdown took too long, leaving", EventID(EventStopForced), "limit", r.limit, "left", r.left())
			return ExitFailure
		case <-r.reloaded:
			r.reloading = false
			if r.again {
				r.requestReload()
			}
		case err := <-r.ended:
			mainEnded = true
			code = r.result(err)
			r.stop("cause", "main ended")
		}
	}
	r.Log.Info("stopped", EventID(EventStopped), "exit_code", code)
	return code
}

// stop starts the shutdown, once.
func (r *run) stop(why, what string) {
	if r.stopping {
		return
	}
	r.stopping = true
	r.limit = defaultShutdown
	if r.ShutdownTimeout != nil {
		if d := r.ShutdownTimeout(); d > 0 {
			r.limit = d
		}
	}
	r.deadline = time.After(r.limit)
	r.Notifier.stopping()
	r.Log.Info("stopping", EventID(EventStopping), why, what, "limit", r.limit)
}

func (r *run) requestReload() {
	if r.Reload == nil || r.stopping {
		return
	}
	if r.again = r.reloading; r.again {
		return
	}
	r.reloading = true
	go func() {
		defer func() { r.reloaded <- struct{}{} }()
		err := Safely(func() error {
			r.Notifier.reloading(r.Reload)
			return nil
		})
		if err != nil {
			r.logFailure("reload failed", err)
		}
	}()
}

// result logs how Main ended and gives the exit code for it.
func (r *run) result(err error) int {
	if err == nil || r.stopping && errors.Is(err, context.Canceled) {
		return ExitOK
	}
	r.logFailure("ending because of an error", err)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return ExitFailure
}

func (r *run) logFailure(message string, err error) {
	var p *PanicError
	if errors.As(err, &p) {
		r.Log.Error(message, EventID(EventPanic), "error", err, "hint", "this is a defect: please report it with the stack", "stack", p.Stack)
		return
	}
	r.Log.Error(message, "error", err)
}

func (r *run) left() string {
	if r.Left == nil {
		return "unknown"
	}
	text := "unknown"
	if err := Safely(func() error { text = r.Left(); return nil }); err != nil {
		return err.Error()
	}
	return text
}

// listen subscribes to the signals of a daemon. It also
// subscribes to SIGPIPE, and drops it: without that, a Go program ends when its
// standard error is closed, which a restart of the journal does. The signal is not
// ignored, because commands that the daemon starts would inherit that.
func listen(hup bool) (<-chan os.Signal, func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	if hup {
		signal.Notify(signals, syscall.SIGHUP)
	}
	pipes := make(chan os.Signal, 1)
	signal.Notify(pipes, syscall.SIGPIPE)
	return signals, func() {
		signal.Stop(signals)
		signal.Stop(pipes)
	}
}

// signalled is the cause of the ctx of Main; returning it is not an error.
type signalled struct{ os.Signal }

func (s signalled) Error() string        { return "received signal: " + s.String() }
func (s signalled) Is(target error) bool { return target == context.Canceled }

func signalNumber(sig os.Signal) int {
	n, _ := sig.(syscall.Signal)
	return int(n)
}

// PanicError is a panic turned into an error.
type PanicError struct {
	Value any
	Stack []byte // of the goroutine that panicked
}

// Error does not include the stack: log it as an attribute of its own.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value when it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Safely calls f and returns its error, or a *PanicError if it panics. One malformed
// object must not end the process.
func Safely(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	return f()
}
