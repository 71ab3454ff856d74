// Package screen draws progress bars on terminals. It escapes control
// characters in all texts. See text.JSON for JSON documents.
//
// It must not know the meaning of the texts.
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

// Redraws returns w as a file if it is a terminal on which a progress bar can be drawn
// and redrawn. termName is the value of TERM.
//
// A serial console or the pseudo-terminal of a container or CI job can have a size of 0
// columns and 0 rows, which means that the size is not set (ioctl_tty(2)). A progress
// bar cannot be drawn on that terminal; use plain lines.
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

// BarTexts are the texts around a bar. The functions are called at each redraw.
type BarTexts struct {
	Before, After func() string // in the line of the bar
	Below         func() string // another line, truncated to the width of the terminal; may be nil
}

// NewBar draws a bar with total steps, none of them done. program is the prefix of the
// lines of Say.
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
	// mpb ends a bar that was created with a total when it is full, but the caller may
	// print more lines after that.
	b.bar = b.out.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"), options...)
	b.bar.SetTotal(total, false)
	return b
}

// fit truncates a line so that it is narrower than the terminal.
func fit(line string, columns int) string {
	return runewidth.Truncate(text.Line(line), max(1, columns-1), "…")
}

// Set sets the number of completed steps.
func (b *Bar) Set(done int64) { b.bar.SetCurrent(done) }

// Say prints a line above the bar.
func (b *Bar) Say(line string) { fmt.Fprintf(b.out, "%s: %s\n", b.program, line) }

// Close draws the bar for the last time and leaves it on the screen.
func (b *Bar) Close() {
	b.bar.Abort(false)
	b.out.Wait()
}

// Lines prints lines where no bar can be drawn. Say may be called concurrently.
type Lines struct {
	w       io.Writer
	program string
	mu      sync.Mutex
}

// NewLines returns Lines with the name of the program as prefix.
func NewLines(w io.Writer, program string) *Lines { return &Lines{w: w, program: program} }

// Say prints a line.
func (l *Lines) Say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%s: %s\n", l.program, line)
}
