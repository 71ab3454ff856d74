// Package lifeline stops the process when its parent has exited, so that a killed test
// leaves no server behind.
//
// It must not know what the process does.
package lifeline

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ErrParentGone is returned if the parent exited before it could be watched.
var ErrParentGone = errors.New("the parent process has exited")

// parent is read as early as possible.
var parent = os.Getppid()

// FollowParent makes the kernel send SIGTERM to this process when the thread that
// started it exits (PR_SET_PDEATHSIG, prctl(2)). That suits a parent with one thread.
// For a parent with many threads, such as a Go program, use FollowStdin. It returns
// ErrParentGone if the parent has already exited.
func FollowParent() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	// The kernel does not send the signal if the parent exited before the call.
	if os.Getppid() != parent {
		return ErrParentGone
	}
	return nil
}

// FollowStdin returns a context that is cancelled at the end of stdin. The kernel
// closes the other end of a pipe in all cases when its process exits.
func FollowStdin(ctx context.Context, stdin io.Reader) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, stdin) // an error counts as the end
	}()
	return ctx, cancel
}
