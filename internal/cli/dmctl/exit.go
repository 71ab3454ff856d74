package dmctl

import (
	"errors"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
)

// Exit codes behind those of every program. They are documented and never change
// their meaning.
const (
	ExitOK          = cli.ExitOK
	ExitFailed      = cli.ExitFailed
	ExitUsage       = cli.ExitUsage
	ExitNotFound    = 3
	ExitCancelled   = 4
	ExitTimeout     = 5
	ExitDenied      = 6
	ExitUnreachable = 7
)

// exits is the documentation of the exit codes.
var exits = []cli.Exit{
	{Code: ExitOK, Meaning: "success; with --wait, the copies have succeeded"},
	{Code: ExitFailed, Meaning: "the copy, or the request for it, has failed"},
	{Code: ExitUsage, Meaning: "the command line is wrong, or the daemon refuses a path or an option"},
	{Code: ExitNotFound, Meaning: "the workflow or the copy does not exist or is not yours"},
	{Code: ExitCancelled, Meaning: "the copy was cancelled"},
	{Code: ExitTimeout, Meaning: "--timeout has expired; the copy continues"},
	{Code: ExitDenied, Meaning: "permission denied"},
	{Code: ExitUnreachable, Meaning: "the daemon cannot be reached, or it cannot reach the rabbit or the API server"},
	{Code: cli.ExitSignal + 2, Meaning: "detached by Ctrl-C (143: by SIGTERM); the copy continues"},
}

var exitOfKind = map[client.Kind]int{
	client.Failed: ExitFailed, client.Invalid: ExitUsage, client.NotFound: ExitNotFound,
	client.Denied: ExitDenied, client.TimedOut: ExitTimeout, client.Interrupted: ExitFailed, client.Unreachable: ExitUnreachable,
}

// exitOf is the exit code for an error.
func exitOf(err error) int {
	if e := (*client.Error)(nil); errors.As(err, &e) {
		return exitOfKind[e.Kind]
	}
	return cli.ExitOf(err)
}

var exitOfResult = map[client.Result]int{
	client.Failure: ExitFailed, client.Refused: ExitFailed, client.Cancelled: ExitCancelled, client.Deleted: ExitNotFound,
}

// exitOfAll is the exit code for how copies stand: of one that failed before
// that of one that was deleted or cancelled. What goes on is well.
func exitOfAll(all []client.Movement) int {
	worst := ExitOK
	for _, m := range all {
		code := exitOfResult[m.Result]
		if code != ExitOK && (worst == ExitOK || code < worst) {
			worst = code
		}
	}
	return worst
}
