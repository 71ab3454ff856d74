package dmctl

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/cli/screen"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// progress shows the progress of copies. Its methods may be called concurrently.
type progress interface {
	// Show shows the latest state of all copies.
	Show([]client.Movement)
	// Say prints a line of the program.
	Say(line string)
	// Close ends the display. The last state stays on the screen.
	Close()
}

// newProgress returns a progress bar if w is a terminal that can draw one, and lines
// otherwise.
func newProgress(w io.Writer, termName string) progress {
	if f, ok := screen.Redraws(w, termName); ok {
		b := new(bar)
		b.state.Store(new(barState))
		b.Bar = screen.NewBar(f, Name, 100, screen.BarTexts{
			Before: func() string { return b.state.Load().before() },
			After:  func() string { return b.state.Load().after(time.Now()) },
			Below:  func() string { return b.state.Load().newest.LastMessage },
		})
		return b
	}
	return newLines(w)
}

// bar is one progress bar for all copies of a call, with the last message of the
// command below it.
type bar struct {
	*screen.Bar
	state atomic.Pointer[barState]
}

// barState is the state that the bar shows.
type barState struct {
	total    int
	ended    int
	percent  int64 // average of all copies
	known    bool  // the percentage of at least one copy is known
	newest   client.Movement
	received time.Time
}

func (b *bar) Show(all []client.Movement) {
	s := sum(all, time.Now())
	if was := b.state.Load(); was.newest.ID == s.newest.ID && was.newest.ElapsedSeconds == s.newest.ElapsedSeconds {
		s.received = was.received // the clock continues from the last change of the elapsed time
	}
	b.state.Store(s)
	b.Set(s.percent)
}

// sum returns the combined state of all copies.
func sum(all []client.Movement, now time.Time) *barState {
	s := &barState{total: len(all), received: now}
	percents := int64(0)
	for _, m := range all {
		if m.Ended() {
			s.ended++
		}
		switch {
		case m.Result == client.Success:
			percents += 100
			s.known = true
		case m.Percent != nil:
			percents += min(100, max(0, int64(*m.Percent)))
			s.known = true
		}
		if s.newest.ID == "" || s.newest.Ended() || !m.Ended() && newer(m, s.newest) {
			s.newest = m
		}
	}
	if s.total > 0 {
		s.percent = percents / int64(s.total)
	}
	return s
}

func newer(a, b client.Movement) bool {
	return a.LastMessageTime != nil && (b.LastMessageTime == nil || a.LastMessageTime.After(*b.LastMessageTime))
}

// before returns the text before the bar.
func (s *barState) before() string {
	switch {
	case s.total == 0:
		return "waiting "
	case s.total > 1:
		return fmt.Sprintf("%d of %d ended %3d%% ", s.ended, s.total, s.percent)
	case s.newest.Ended():
		return fmt.Sprintf("%-10s %3d%% ", s.newest.Result, s.percent)
	case s.known:
		return fmt.Sprintf("%-10s %3d%% ", s.newest.State, s.percent)
	}
	return fmt.Sprintf("%-10s      ", s.newest.State)
}

// after returns the text after the bar. The clock continues between the messages of the
// command.
func (s *barState) after(now time.Time) string {
	m := s.newest
	var parts []string
	if d := m.Elapsed(); d > 0 {
		if m.State == client.Running {
			d += now.Sub(s.received)
		}
		parts = append(parts, clock(d))
	}
	if m.Rate != "" {
		parts = append(parts, figure(m.Rate))
	}
	if left := timeLeft(m); left != "" {
		parts = append(parts, left+" left")
	}
	return " " + strings.Join(parts, "  ")
}

// clock formats a duration so that its width does not change at each redraw.
func clock(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// lines shows progress where nothing can be redrawn, such as in the output of a job. It
// prints a line for each change of state, and otherwise at intervals of progress and
// time.
type lines struct {
	*screen.Lines
	now func() time.Time

	mu   sync.Mutex
	last map[string]printed
}

type printed struct {
	state   client.State
	percent int32
	at      time.Time
}

// A line is printed for a running copy after this progress, or after this time.
const (
	stepPercent = 10
	stepTime    = 30 * time.Second
)

func newLines(w io.Writer) *lines {
	return &lines{Lines: screen.NewLines(w, Name), now: time.Now, last: make(map[string]printed)}
}

func (l *lines) Show(all []client.Movement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, m := range all {
		was, known := l.last[m.ID]
		is := printed{state: m.State, at: now}
		if m.Percent != nil {
			is.percent = *m.Percent
		}
		if known && was.state == is.state && (m.Ended() || is.percent < was.percent+stepPercent && now.Sub(was.at) < stepTime) {
			continue
		}
		l.last[m.ID] = is
		if m.Ended() {
			continue // the result is printed at the end
		}
		line := text.Line(m.ID) + ": " + describe(m)
		if m.LastMessage != "" {
			line += ": " + text.Line(m.LastMessage)
		}
		l.Say(line)
	}
}

func (l *lines) Close() {}

// summary returns the state of a copy in one line: id, progress, and the message unless
// the copy has succeeded.
func summary(m client.Movement) string {
	line := text.Line(m.ID) + ": " + describe(m)
	if m.Message != "" && m.Result != client.Success {
		line += ": " + text.Line(m.Message)
	}
	return line
}

// describe returns the progress of a copy in one line, without its id.
func describe(m client.Movement) string {
	parts := []string{string(m.State)}
	if m.Ended() && m.Result != "" {
		parts[0] = string(m.Result)
	}
	if m.Percent != nil && !m.Ended() {
		parts[0] += fmt.Sprintf(" %d%%", *m.Percent)
	}
	if d := m.Elapsed(); d > 0 {
		parts = append(parts, d.String())
	}
	for _, s := range []string{m.Data, m.Rate} {
		if s != "" {
			parts = append(parts, figure(s))
		}
	}
	if left := timeLeft(m); left != "" {
		parts = append(parts, left+" left")
	}
	if m.Restarts > 0 {
		parts = append(parts, fmt.Sprintf("restarted %d×", m.Restarts))
	}
	return strings.Join(parts, ", ")
}

// figure removes the number of bytes that dcp adds in its final report:
// "1.500 GiB (1610612736 bytes)".
func figure(s string) string {
	s, _, _ = strings.Cut(s, " (")
	return text.Line(s)
}

// timeLeft returns the remaining time of a copy, as reported by its command or else
// estimated from its progress; empty if unknown.
func timeLeft(m client.Movement) string {
	switch {
	case m.State != client.Running:
		return ""
	case m.Left != "":
		return text.Line(m.Left)
	case m.Percent == nil || *m.Percent <= 0 || *m.Percent >= 100 || m.Elapsed() <= 0:
		return ""
	}
	done := float64(*m.Percent)
	return time.Duration(float64(m.Elapsed()) * (100 - done) / done).Round(time.Second).String()
}
