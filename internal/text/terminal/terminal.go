// Package terminal answers what an output can show.
//
// It must not know what is shown.
package terminal

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Redraws returns w as a file if it is a terminal on which a progress bar can be
// drawn and drawn over. termName is the value of TERM.
//
// A serial console, the pseudo-terminal of a container or of a CI job may have a
// size of 0 columns and 0 rows, which means that it is not set (ioctl_tty(2)).
// A progress bar does not fit on that terminal, so it gets plain lines.
func Redraws(w io.Writer, termName string) (*os.File, bool) {
	f, ok := w.(*os.File)
	if !ok || termName == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	columns, rows, err := term.GetSize(int(f.Fd()))
	return f, err == nil && columns > 0 && rows > 0
}
