package screen

import (
	"io"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text/terminal"
)

// Follower shows how copies go on. Its methods may be called at the same time.
type Follower interface {
	// Show takes the newest state of all copies.
	Show([]client.Movement)
	// Say writes a line of ours between what is shown.
	Say(line string)
	// Close leaves the screen as it is and shows no more.
	Close()
}

// NewFollower returns a progress bar if w is a terminal that can show one, lines
// that begin with prefix otherwise.
func NewFollower(w io.Writer, prefix, termName string) Follower {
	if f, ok := terminal.Redraws(w, termName); ok {
		return newBar(f, prefix)
	}
	return newLines(w, prefix)
}
