// Package lifeline ends a cluster when whoever started it is gone, so that a
// test that is killed leaves no server behind.
//
// It must not know what ends.
package lifeline

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrParentGone says that the parent ended before it could be watched.
var ErrParentGone = errors.New("the parent process has ended")

// parent is taken at program start, as early as this process can.
var parent = os.Getppid()

// FollowParent makes the kernel send SIGTERM to this process when the thread
// that started it ends (PR_SET_PDEATHSIG, prctl(2)). For a parent of one thread
// that is the parent's end; a parent of many threads, such as a Go program,
// should use FollowStdin. ErrParentGone: the parent ended first.
func FollowParent() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	// The signal is not sent for a death before the call.
	if os.Getppid() != parent {
		return ErrParentGone
	}
	return nil
}

// FollowStdin returns a context that ends when the reader does. The kernel
// closes a pipe's other end however its holder dies.
func FollowStdin(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin) // an error is an end too
	}()
	return ctx, cancel
}
