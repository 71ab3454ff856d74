package commands

import "errors"

// Exit codes. They are documented and never change their meaning.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2
	exitStopped = 128 // and the signal's number
)

// exits is the documentation of the exit codes.
var exits = []struct {
	code    int
	meaning string
}{
	{ExitOK, "done, on every node"},
	{ExitFailed, "failed, on one node or more; what and why was said"},
	{ExitUsage, "the command line is wrong; nothing was done"},
	{exitStopped + 2, "ended by Ctrl-C, 143 by SIGTERM"},
}

// exitOf is the exit code for an error.
func exitOf(err error) int {
	var s *stopped
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &s):
		return exitStopped + int(s.signal)
	}
	return ExitFailed
}
