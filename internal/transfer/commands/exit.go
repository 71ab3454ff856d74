package commands

import (
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/transfer"
)

// Exit codes. They are documented and never change their meaning.
const (
	ExitOK          = 0
	ExitFailed      = 1
	ExitUsage       = 2
	ExitNotFound    = 3
	ExitCancelled   = 4
	ExitTimeout     = 5
	ExitDenied      = 6
	ExitUnreachable = 7
	exitSignal      = 128 // and the signal's number: detached, the copy goes on
)

// exits is the documentation of the exit codes.
var exits = []struct {
	code    int
	meaning string
}{
	{ExitOK, "done; what was waited for has succeeded"},
	{ExitFailed, "failed: the copy, or the request for it"},
	{ExitUsage, "the command line is wrong, or the daemon refuses a path or option in it"},
	{ExitNotFound, "no such workflow or copy, or it is not yours"},
	{ExitCancelled, "the copy was cancelled"},
	{ExitTimeout, "the time is up; the copy goes on"},
	{ExitDenied, "not allowed"},
	{ExitUnreachable, "the daemon cannot be reached, or cannot reach the rabbit or the API server now"},
	{exitSignal + 2, "detached by Ctrl-C, 143 by SIGTERM: the copy goes on"},
}

var exitOfKind = map[transfer.Kind]int{
	transfer.Failed: ExitFailed, transfer.Invalid: ExitUsage, transfer.NotFound: ExitNotFound,
	transfer.Denied: ExitDenied, transfer.TimedOut: ExitTimeout, transfer.Interrupted: ExitFailed, transfer.Unreachable: ExitUnreachable,
}

// exitOf is the exit code for an error.
func exitOf(err error) int {
	var d *detached
	var e *transfer.Error
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &d):
		return exitSignal + int(d.signal)
	case errors.As(err, &e):
		return exitOfKind[e.Kind]
	}
	return ExitFailed
}

var exitOfResult = map[transfer.Result]int{
	transfer.Failure: ExitFailed, transfer.Refused: ExitFailed, transfer.Cancelled: ExitCancelled, transfer.Deleted: ExitNotFound,
}

// exitOfAll is the exit code for how copies stand: of one that failed before
// that of one that was deleted or cancelled. What goes on is well.
func exitOfAll(all []transfer.Movement) int {
	worst := ExitOK
	for _, m := range all {
		code := exitOfResult[m.Result]
		if code != ExitOK && (worst == ExitOK || code < worst) {
			worst = code
		}
	}
	return worst
}
