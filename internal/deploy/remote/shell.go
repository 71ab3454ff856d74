// Package remote runs the program's own scripts on nodes, by the administrator's
// ssh with all that is set up for it: names, keys, agent, jump hosts, shared
// connections.
//
// No text that is not written in this program ever becomes part of a command
// line on a node: the scripts themselves, and all that varies, travel on
// standard input.
//
// It must not know what the scripts do.
package remote

import (
	"context"
	"io"
)

// Script is one of the program's own shell scripts.
type Script struct {
	Name string // for messages
	Text string // POSIX shell; it must not be empty and must not use $m
}

// Shell runs a script on a node and gives it stdin. The lines that the script
// prints go to stdout, and nothing that others print there. It returns when the
// script has ended, even if stdin is not read to its end. Each error is an *Error.
type Shell interface {
	Run(ctx context.Context, node string, s Script, stdin io.Reader, stdout io.Writer) error
}
