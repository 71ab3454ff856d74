package systemd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode"

	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
)

// Do does what the verb says and returns the exit code: 0, or 1 for an error.
// The result is one line, on stdout when it went well, else on stderr with the
// error below it; a status is the answer itself. An Error has the form that scripts
// know from earlier daemons; the others, and all hints, have that of every program.
// Colours are for a terminal, and not where NO_COLOR says no.
func (s *Service) Do(ctx context.Context, verb string, args, environ []string, stdout, stderr io.Writer) int {
	notes, err := s.do(ctx, verb, args)
	out, word, colour := stdout, "  OK  ", "32"
	if err != nil {
		out, word, colour = stderr, "FAILED", "31"
	}
	var b strings.Builder
	if action := Verbs[verb]; action != "" {
		if coloured(out, environ) {
			word = "\x1b[" + colour + "m" + word + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s %s:\t\t\t\t\t[%s]\n", action, s.Description, word)
	} else if errors.Is(err, ErrNotInstalled) {
		b.WriteString("Service not installed\n")
	}
	for _, note := range notes {
		b.WriteString(plain(note) + "\n")
	}
	if known, ok := errors.AsType[Error](err); ok && err.Error() == known.Error() {
		fmt.Fprintf(&b, "Error:  %s\n", known)
		if text := hint.Of(err); text != "" {
			fmt.Fprintf(&b, "%s: hint: %s\n", s.Name, plain(text))
		}
	} else if err != nil {
		hint.Write(&b, "", s.Name, err)
	}
	if _, werr := io.WriteString(out, b.String()); err != nil || werr != nil {
		return 1
	}
	return 0
}

func coloured(w io.Writer, environ []string) bool {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) {
		return false
	}
	for _, kv := range environ {
		if name, value, _ := strings.Cut(kv, "="); name == "NO_COLOR" && value != "" || name == "TERM" && value == "dumb" {
			return false
		}
	}
	return true
}

// plain makes one line of a text that came from elsewhere, with nothing in it
// that a terminal would obey.
func plain(text string) string {
	text = strings.ReplaceAll(strings.TrimSpace(text), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, text)
}
