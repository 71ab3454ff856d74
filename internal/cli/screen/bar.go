package screen

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mattn/go-runewidth"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// bar is one progress bar for all copies of a call, with the last message of the
// command below it.
type bar struct {
	prefix string
	out    *mpb.Progress
	bar    *mpb.Bar
	state  atomic.Pointer[shown]
}

// shown is what the bar shows.
type shown struct {
	total    int
	ended    int
	percent  int64 // of all, on average
	known    bool  // the percentage means something
	newest   client.Movement
	received time.Time
}

const (
	refresh  = 150 * time.Millisecond
	barWidth = 30
)

func newBar(f *os.File, prefix string) *bar {
	b := &bar{prefix: prefix}
	b.state.Store(new(shown))
	b.out = mpb.New(mpb.WithOutput(f), mpb.WithRefreshRate(refresh), mpb.WithAutoRefresh())
	// Made without a total it does not end by itself at 100 %, which the command
	// may write long before the copy has ended.
	b.bar = b.out.New(0, mpb.BarStyle().Lbound("[").Filler("=").Tip(">").Padding(" ").Rbound("]"),
		mpb.BarWidth(barWidth), mpb.BarFillerTrim(),
		mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return b.state.Load().head() })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return b.state.Load().tail(time.Now()) })),
		mpb.BarExtender(mpb.BarFillerFunc(b.message), false),
	)
	b.bar.SetTotal(100, false)
	return b
}

func (b *bar) Show(all []client.Movement) {
	s := summed(all, time.Now())
	if was := b.state.Load(); was.newest.ID == s.newest.ID && was.newest.ElapsedSeconds == s.newest.ElapsedSeconds {
		s.received = was.received // the clock goes on from the beat that it came with
	}
	b.state.Store(s)
	b.bar.SetCurrent(s.percent)
}

// summed makes one state of all copies.
func summed(all []client.Movement, now time.Time) *shown {
	s := &shown{total: len(all), received: now}
	sum := int64(0)
	for _, m := range all {
		if m.Ended() {
			s.ended++
		}
		switch {
		case m.Result == client.Success:
			sum += 100
			s.known = true
		case m.Percent != nil:
			sum += min(100, max(0, int64(*m.Percent)))
			s.known = true
		}
		if s.newest.ID == "" || s.newest.Ended() || !m.Ended() && newer(m, s.newest) {
			s.newest = m
		}
	}
	if s.total > 0 {
		s.percent = sum / int64(s.total)
	}
	return s
}

func newer(a, b client.Movement) bool {
	return a.LastMessageTime != nil && (b.LastMessageTime == nil || a.LastMessageTime.After(*b.LastMessageTime))
}

// head stands before the bar.
func (s *shown) head() string {
	switch {
	case s.total == 0:
		return "asking "
	case s.total > 1:
		return fmt.Sprintf("%d of %d ended %3d%% ", s.ended, s.total, s.percent)
	case s.newest.Ended():
		return fmt.Sprintf("%-10s %3d%% ", s.newest.Result, s.percent)
	case s.known:
		return fmt.Sprintf("%-10s %3d%% ", s.newest.State, s.percent)
	}
	return fmt.Sprintf("%-10s      ", s.newest.State)
}

// tail stands behind it: the clock goes on between the command's messages.
func (s *shown) tail(now time.Time) string {
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
	if left := Left(m); left != "" {
		parts = append(parts, left+" left")
	}
	return " " + strings.Join(parts, "  ")
}

// clock writes a time so that it does not change its width at each turn.
func clock(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%.1fs", d.Seconds())
	}
	return d.Round(time.Second).String()
}

// message is the line below the bar.
func (b *bar) message(w io.Writer, st decor.Statistics) error {
	line := text.Line(b.state.Load().newest.LastMessage)
	_, err := fmt.Fprintln(w, runewidth.Truncate(line, max(1, st.AvailableWidth-1), "…"))
	return err
}

func (b *bar) Say(line string) { fmt.Fprintf(b.out, "%s: %s\n", b.prefix, line) }

func (b *bar) Close() {
	b.bar.Abort(false)
	b.out.Wait()
}
