// Package screen draws what the tools show: a progress bar on a terminal and tables.
// JSON documents are written by text.JSON. Nothing that is shown can steer the terminal.
//
// It must not know what is shown.
package screen

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Redraws returns w as a file if it is a terminal on which a progress bar can be
// drawn and redrawn. termName is the value of TERM.
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

const (
	refresh  = 150 * time.Millisecond // time between two drawings of a bar
	barWidth = 30
)

// Bar is a progress bar. Its methods may be called concurrently.
type Bar struct {
	program string
	out     *mpb.Progress
	bar     *mpb.Bar
}

// BarTexts are called each time that a bar is drawn.
type BarTexts struct {
	Before, After func() string // in the line of the bar
	Below         func() string // one more line, cut to the width of the terminal; may be nil
}

// NewBar draws a bar with total steps, none of them done. program is the name in front
// of the lines of Say.
func NewBar(f *os.File, program string, total int64, texts BarTexts) *Bar {
	b := &Bar{program: program, out: mpb.New(mpb.WithOutput(f), mpb.WithRefreshRate(refresh), mpb.WithAutoRefresh())}
	options := []mpb.BarOption{
		mpb.BarWidth(barWidth), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return texts.Before() })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return texts.After() })),
	}
	if texts.Below != nil {
		options = append(options, mpb.BarExtender(mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
			_, err := io.WriteString(w, fit(texts.Below(), s.AvailableWidth)+"\n")
			return err
		}), false))
	}
	// A bar that is made without a total does not end by itself when it is full. The
	// caller may say more after that.
	b.bar = b.out.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"), options...)
	b.bar.SetTotal(total, false)
	return b
}

// fit returns a line that is narrower than a terminal of this width.
func fit(line string, columns int) string {
	return runewidth.Truncate(text.Line(line), max(1, columns-1), "…")
}

// Set sets how many steps are done.
func (b *Bar) Set(done int64) { b.bar.SetCurrent(done) }

// Say prints a line above the bar.
func (b *Bar) Say(line string) { fmt.Fprintf(b.out, "%s: %s\n", b.program, line) }

// Close draws the bar for the last time and leaves it on the screen.
func (b *Bar) Close() {
	b.bar.Abort(false)
	b.out.Wait()
}

// Lines prints lines where no bar can be drawn. Its method may be called concurrently.
type Lines struct {
	w       io.Writer
	program string
	mu      sync.Mutex
}

// NewLines returns Lines that start with the name of the program.
func NewLines(w io.Writer, program string) *Lines { return &Lines{w: w, program: program} }

// Say prints a line.
func (l *Lines) Say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%s: %s\n", l.program, line)
}
