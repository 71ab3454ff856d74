package commands

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/printable"
	"github.com/compute-daemons/compute-daemons/internal/transfer"
	"github.com/compute-daemons/compute-daemons/internal/transfer/screen"
)

// follow waits for the end of copies and shows how they go on. The first Ctrl-C
// detaches after a moment in which a second one cancels; other signals detach at
// once. The copies need nobody who follows them.
func (v *call) follow(ctx context.Context, ids []string) ([]transfer.Movement, error) {
	if v.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, v.timeout)
		defer cancel()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &follow{v: v, ids: ids, done: make(chan struct{})}
	var show func([]transfer.Movement)
	if !v.quiet {
		f.screen = screen.NewFollower(v.Stderr, Name, getenv(v.Environ, "TERM"))
		show = f.screen.Show
	}
	go func() {
		defer close(f.done)
		f.all, f.err = v.client.Follow(ctx, ids, show)
	}()
	err := f.attend(ctx)
	cancel()
	<-f.done
	if f.screen != nil {
		f.screen.Close()
	}
	return f.all, f.judge(err)
}

type follow struct {
	v      *call
	ids    []string
	screen screen.Follower // nil with --quiet
	done   chan struct{}
	all    []transfer.Movement // when done
	err    error
}

// attend returns when the copies have ended, or with the reason to go.
func (f *follow) attend(ctx context.Context) error {
	var detach <-chan time.Time
	first, cancelled := os.Signal(nil), false
	for {
		select {
		case <-f.done:
			return nil
		case <-detach:
			return &detached{signal: number(first)}
		case s := <-f.v.Signals:
			switch {
			case s != os.Interrupt || cancelled:
				return &detached{signal: number(s)}
			case first == nil:
				first = s
				f.say("detaching; Ctrl-C again within %v cancels", f.v.Grace)
				t := time.NewTimer(f.v.Grace)
				defer t.Stop()
				detach = t.C
			default:
				cancelled, detach = true, nil
				f.say("cancelling")
				if err := f.v.client.Cancel(ctx, f.ids); err != nil {
					return err
				}
			}
		}
	}
}

// judge says how to go on when the copies go on without us.
func (f *follow) judge(err error) error {
	if err == nil {
		err = f.err
	}
	again := Name + " wait " + strings.Join(quoted(f.ids), " ")
	e := (*transfer.Error)(nil)
	switch {
	case err == nil:
	case errors.As(err, new(*detached)):
		f.v.say("detached, the copy goes on; to follow it again: %s", again)
	case errors.As(err, &e) && e.Kind == transfer.TimedOut && f.v.timeout > 0:
		return &transfer.Error{Kind: transfer.TimedOut, Text: fmt.Sprintf("not ended after %v", f.v.timeout), Hint: "the copy goes on; to follow it again: " + again}
	case errors.As(err, &e) && e.Kind == transfer.Unreachable:
		f.v.say("to follow the copy when the daemon is back: %s", again)
	}
	return err
}

func (f *follow) say(format string, args ...any) {
	if f.screen != nil {
		f.screen.Say(fmt.Sprintf(format, args...))
		return
	}
	f.v.say(format, args...)
}

// detached is the error of who left before the end.
type detached struct{ signal syscall.Signal }

func (d *detached) Error() string { return "detached by " + d.signal.String() }

func number(s os.Signal) syscall.Signal {
	n, _ := s.(syscall.Signal)
	return n
}

// quoted makes ids safe to be pasted into a shell.
func quoted(ids []string) []string {
	var out []string
	for _, id := range ids {
		out = append(out, shellWord(printable.Line(id)))
	}
	return out
}

func shellWord(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@%+,") == "" && s != "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// interruptible returns a context that a signal ends, with a *detached as cause.
func (v *call) interruptible(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case s := <-v.Signals:
			cancel(&detached{signal: number(s)})
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// interrupted is err, or the signal that was its cause.
func interrupted(ctx context.Context, err error) error {
	if d := (*detached)(nil); err != nil && errors.As(context.Cause(ctx), &d) {
		return d
	}
	return err
}
