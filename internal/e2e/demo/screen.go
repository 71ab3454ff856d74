package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// screen writes lines for people: colours only on a terminal, and not when
// NO_COLOR is set (no-color.org) or the terminal is dumb.
type screen struct {
	file   *os.File
	colour bool
}

func newScreen(f *os.File, getenv func(string) string) *screen {
	return &screen{f, term.IsTerminal(int(f.Fd())) && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb"}
}

const (
	bold  = "1"
	dim   = "2"
	green = "32"
	red   = "31"
	cyan  = "36"
)

func (s *screen) paint(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// title prints the heading of a part.
func (s *screen) title(text string) { fmt.Fprintln(s.file, s.paint(bold, text)) }

// note prints an explanation of the demo.
func (s *screen) note(text string) { fmt.Fprintln(s.file, s.paint(dim, text)) }

// good prints an event and how long it took.
func (s *screen) good(what, detail string, took time.Duration) { s.event(green, what, detail, took) }

// bad prints a failure that is part of the demo.
func (s *screen) bad(what, detail string, took time.Duration) { s.event(red, what, detail, took) }

func (s *screen) event(code, what, detail string, took time.Duration) {
	fmt.Fprintf(s.file, "%s %s %s\n", s.paint(code, fmt.Sprintf("%-13s", what)), s.paint(bold, fmt.Sprintf("%8s", short(took))), detail)
}

// step prints one line below an event.
func (s *screen) step(name, detail string, took time.Duration) {
	fmt.Fprintf(s.file, "  %-11s %8s %s\n", name, short(took), s.paint(dim, detail))
}

// command prints a command line as a user types it.
func (s *screen) command(text string) { fmt.Fprintln(s.file, s.paint(cyan, "$ "+text)) }

// block prints the text of a program or an object, indented.
func (s *screen) block(text string) {
	for line := range strings.Lines(strings.TrimRight(text, "\n") + "\n") {
		fmt.Fprint(s.file, "  ", line)
	}
}

// inset returns a writer that indents lines as block does.
func (s *screen) inset() io.Writer { return &inset{screen: s} }

type inset struct {
	*screen
	inside bool // the last write ended within a line
}

func (w *inset) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		if !w.inside {
			fmt.Fprint(w.file, "  ")
		}
		if _, err := w.file.Write(line); err != nil {
			return 0, err
		}
		w.inside = !bytes.HasSuffix(line, []byte("\n"))
	}
	return len(b), nil
}

// short formats a duration with about three digits.
func short(d time.Duration) string {
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000)
	}
	return fmt.Sprintf("%d µs", d.Microseconds())
}
