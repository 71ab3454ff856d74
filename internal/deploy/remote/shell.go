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
	"fmt"
	"io"
)

// Script is one of the program's own shell scripts.
type Script struct {
	Name string // for messages
	Text string // POSIX shell; it must not be empty
}

// Shell runs a script on a node and gives it stdin; what it prints goes to
// stdout. It returns when the script has ended, also when stdin is not read to
// its end. Each error is an *Error.
type Shell interface {
	Run(ctx context.Context, node string, s Script, stdin io.Reader, stdout io.Writer) error
}

// command is what the node's login shell is told: a shell that reads its script,
// of that many bytes, from standard input and leaves the rest there. Every
// login shell understands it, also those that are not POSIX shells. Byte by
// byte, because what is read too much would be lost.
func (s Script) command(sudo bool) string {
	prefix := "exec "
	if sudo {
		prefix += "sudo -n "
	}
	return fmt.Sprintf(`%ssh -c 'eval "$(dd bs=1 count=%d 2>/dev/null)"'`, prefix, len(s.Text))
}
