package commands

import (
	"context"
	"errors"
	"os"
	"syscall"
)

// stopped is the error of who was ended by a signal.
type stopped struct{ signal syscall.Signal }

func (s *stopped) Error() string { return "ended by " + s.signal.String() }

func number(s os.Signal) syscall.Signal {
	n, _ := s.(syscall.Signal)
	return n
}

// interruptible returns a context that a signal ends, with a *stopped as cause.
func (v *call) interruptible(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case s := <-v.Signals:
			cancel(&stopped{signal: number(s)})
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// interrupted is err, or the signal that was its cause.
func interrupted(ctx context.Context, err error) error {
	if s := (*stopped)(nil); err != nil && errors.As(context.Cause(ctx), &s) {
		return s
	}
	return err
}
