package timeline

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Widths of the columns. A line has at most 100 columns.
const (
	columns   = 100
	nameWidth = 22 // of the longest name of a request
	kindWidth = 8
	barWidth  = 35
)

// The characters of a bar.
const (
	barDone    = '#'
	barRetried = '='
	barFailed  = 'x'
	barPause   = '.'
)

const legend = "# done at the first try  = several tries  x failed  . pause before the next try\n"

// Bars writes the timeline of a node: for each life and phase one line per step, with a bar on the
// scale of the phase.
func Bars(w io.Writer, t *mountstate.Timeline) error {
	var b strings.Builder
	for i := range t.Lives {
		if i > 0 {
			b.WriteByte('\n')
		}
		life(&b, &t.Lives[i], t.Time)
	}
	if len(t.Lives) > 0 {
		b.WriteString("\n" + legend)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func life(b *strings.Builder, l *mountstate.Life, now time.Time) {
	head := l.ClientMount
	if l.Workflow != "" {
		head += ", workflow " + l.Workflow
	}
	b.WriteString(text.Wrap(columns, "", "  ", text.Line(head)+": "+story(l, now)))
	for _, phase := range Phases {
		list, started, finished := steps(l, phase)
		if len(list) == 0 {
			continue
		}
		fmt.Fprintf(b, "  %s: %s, started %s\n", phase, Duration(finished.Sub(started)), stamp(started))
		for _, path := range paths(list) {
			b.WriteString("    " + text.Clip(text.Line(cmp.Or(path, "(ClientMount)")), columns-8) + "\n")
			for _, s := range list {
				if s.Path == path {
					line(b, &s, started, finished)
				}
			}
		}
	}
	if l.Dropped > 0 {
		fmt.Fprintf(b, "  %d more steps were not kept\n", l.Dropped)
	}
}

// story describes a life in one line.
func story(l *mountstate.Life, now time.Time) string {
	s := "started " + stamp(l.Started)
	switch {
	case l.Ready != nil:
		s += ", ready after " + Duration(l.Ready.Sub(l.Started))
	case l.Ended == nil:
		s += ", not ready after " + Duration(now.Sub(l.Started))
	default:
		s += ", never ready"
	}
	if l.Ended != nil {
		s += ", ended after " + Duration(l.Ended.Sub(l.Started))
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

func line(b *strings.Builder, s *mountstate.Step, started, finished time.Time) {
	note := ""
	if s.Tries > 1 {
		note = fmt.Sprintf("%d tries", s.Tries)
	}
	if s.Failed {
		note = strings.TrimPrefix(note+", failed", ", ")
	}
	row := fmt.Sprintf("      %-*s %-*s %7s |%s| %.16s", nameWidth, short(s.Name, nameWidth), kindWidth, short(s.Kind, kindWidth),
		Duration(Seconds(s.Seconds)), bar(s, started, finished), note)
	b.WriteString(strings.TrimRight(row, " ") + "\n")
	if s.Error != "" {
		b.WriteString("        " + text.Clip(text.Line(s.Error), columns-9) + "\n")
	}
}

// short returns a word of at most width columns.
func short(word string, width int) string {
	if word = text.Line(word); len(word) > width {
		return text.Clip(word, width-1)
	}
	return word
}

// bar returns the bar of a step on the scale from started to finished. It has at least one character.
func bar(s *mountstate.Step, started, finished time.Time) string {
	scale := max(finished.Sub(started).Seconds(), 1e-6)
	at := func(t time.Time) int {
		return min(max(int(t.Sub(started).Seconds()/scale*barWidth), 0), barWidth)
	}
	from := min(at(s.Started), barWidth-1)
	to := max(at(s.Finished), from+1)
	mark := barDone
	switch {
	case s.Failed:
		mark = barFailed
	case s.Kind == mountstate.StepRetry:
		mark = barPause
	case s.Tries > 1:
		mark = barRetried
	}
	return strings.Repeat(" ", from) + strings.Repeat(string(mark), to-from) + strings.Repeat(" ", barWidth-to)
}
