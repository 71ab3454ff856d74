package screen

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// lines shows progress where nothing can be overwritten: in a job's output. It
// writes what a reader of the file wants later, not each beat.
type lines struct {
	w      io.Writer
	prefix string
	now    func() time.Time

	mu   sync.Mutex
	last map[string]written
}

type written struct {
	state   client.State
	percent int32
	at      time.Time
}

// A running copy gets a line when it is so much further, or was silent so long.
const (
	stepPercent = 10
	stepTime    = 30 * time.Second
)

func newLines(w io.Writer, prefix string) *lines {
	return &lines{w: w, prefix: prefix, now: time.Now, last: make(map[string]written)}
}

func (l *lines) Show(all []client.Movement) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for _, m := range all {
		was, known := l.last[m.ID]
		is := written{state: m.State, at: now}
		if m.Percent != nil {
			is.percent = *m.Percent
		}
		if known && was.state == is.state && (m.Ended() || is.percent < was.percent+stepPercent && now.Sub(was.at) < stepTime) {
			continue
		}
		l.last[m.ID] = is
		if m.Ended() {
			continue // the answer says it
		}
		line := text.Line(m.ID) + ": " + Progress(m)
		if m.LastMessage != "" {
			line += ": " + text.Line(m.LastMessage)
		}
		fmt.Fprintf(l.w, "%s: %s\n", l.prefix, line)
	}
}

func (l *lines) Say(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.w, "%s: %s\n", l.prefix, line)
}

func (l *lines) Close() {}
