package target

import (
	"io"
	"strings"
)

// Outcome is what became of a switch, as the node says.
type Outcome struct {
	Run     string
	State   string // ok, old (it failed and was undone), unready (new, but a daemon does not get ready), mixed, partly (removed)
	Cause   string
	Hint    string
	Notes   []string // what else there is to know
	Said    []string // what daemons say of themselves
	Journal []string // the last lines of a daemon that does not get ready
}

// reader reads what the apply script says, while it says it.
type reader struct {
	outcome Outcome
	trouble *Problem
	rest    string
	signal  func(word string) // staged, switching, heard
}

// Write implements io.Writer.
func (r *reader) Write(p []byte) (int, error) {
	r.rest += string(p)
	for {
		line, rest, whole := strings.Cut(r.rest, "\n")
		if !whole {
			break
		}
		r.rest = rest
		r.take(strings.Split(line, "\t"))
	}
	return len(p), nil
}

func (r *reader) take(f []string) {
	switch o := &r.outcome; {
	case len(f) == 1 && (f[0] == "staged" || f[0] == "switching" || f[0] == "heard"):
		if r.signal != nil {
			r.signal(f[0])
		}
	case f[0] == "error" && len(f) >= 3:
		r.trouble = &Problem{Text: f[1], Hint: f[2]}
	case f[0] == "result" && len(f) >= 5:
		o.Run, o.State, o.Cause, o.Hint = f[1], f[2], f[3], f[4]
	case f[0] == "note" && len(f) >= 2:
		o.Notes = append(o.Notes, f[1])
	case f[0] == "said" && len(f) >= 2:
		o.Said = append(o.Said, f[1])
	case f[0] == "journal" && len(f) >= 2:
		o.Journal = append(o.Journal, strings.Join(f[1:], " "))
	}
}

var _ io.Writer = (*reader)(nil)
