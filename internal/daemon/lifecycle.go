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

// Exit codes. After a second signal the process exits with 128 plus the number of
// the signal, as in a shell.
const (
	ExitOK      = 0
	ExitFailure = 1
	ExitUsage   = 2
)

// defaultShutdown is the limit if ShutdownTimeout is not set.
const defaultShutdown = 30 * time.Second

// lifecycle has the functions that a process runs from its start to its exit. Only
// Log and Main are required.
type lifecycle struct {
	Log      *slog.Logger
	Notifier *Notifier

	// Main works until ctx is cancelled, then lets running steps finish and
	// returns. An error with a method ExitCode() int sets the exit code.
	Main func(ctx context.Context) error

	// Reload is called on SIGHUP, never concurrently. Signals that arrive while
	// it runs cause one more call. nil: SIGHUP terminates the process.
	Reload func()

	// ShutdownTimeout returns how long Main may take after ctx is cancelled. It is
	// called at that time, so that a reload can change it. nil or ≤ 0: 30 s.
	ShutdownTimeout func() time.Duration

	// Left describes what is still running, for the log record about an exit
	// before Main has returned. It must not block.
	Left func() string

	Signals <-chan os.Signal // for tests; nil: the process's signals
}

// runLifecycle calls Main and returns the exit code after Main has returned. SIGTERM
// or SIGINT cancels the ctx of Main. After a second signal, or after the shutdown
// timeout, runLifecycle returns although Main still runs, and the caller must exit.
// A panic in Main or Reload is logged with its stack; a panic in another goroutine
// cannot be caught here.
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
	again     bool // reload again after the current reload
}

func (r *run) main(ctx context.Context) {
	err := errors.New("main exited without returning")
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
				r.Log.Error("second signal received, exiting immediately", EventID(EventStopForced), "signal", sig.String(), "left", r.left())
				return 128 + signalNumber(sig)
			default:
				r.stop("signal", sig.String())
				r.cancel(signalled{sig})
			}
		case <-done:
			done = nil
			r.stop("cause", context.Cause(ctx).Error())
		case <-r.deadline:
			r.Log.Error("shutdown timed out, exiting", EventID(EventStopForced), "limit", r.limit, "left", r.left())
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

// stop starts the shutdown. Only the first call has an effect.
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

// result logs the error of Main and returns the exit code.
func (r *run) result(err error) int {
	if err == nil || r.stopping && errors.Is(err, context.Canceled) {
		return ExitOK
	}
	r.logFailure("exiting because of an error", err)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return ExitFailure
}

func (r *run) logFailure(message string, err error) {
	var p *PanicError
	if errors.As(err, &p) {
		r.Log.Error(message, EventID(EventPanic), "error", err, "hint", "this is a bug: please report it with the stack trace", "stack", p.Stack)
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

// listen subscribes to the signals of a daemon. It also subscribes to SIGPIPE and
// drops it. Otherwise a Go program exits when its standard error is closed, as during
// a restart of the journal. The signal is not ignored, because commands that the
// daemon starts would inherit that.
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

// signalled is the cancellation cause of the ctx of Main. Main may return it; it is
// not an error.
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

// Error does not include the stack. Log the stack as a separate attribute.
func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// Unwrap returns the value if it is an error.
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
