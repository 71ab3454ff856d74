// Package timeline renders the timelines of nodes: as text bars, as trace events, and as statistics
// over many nodes.
//
// It must not know how a timeline is recorded or collected, and reads nothing.
package timeline

import (
	"fmt"
	"slices"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Limits of the timeline of one node. A compromised node can send anything.
const (
	maxLives = 64
	maxSteps = 512 // of all lives together
	maxName  = 128 // bytes
	maxPath  = 256
	maxError = 300
)

// Select removes the lives of other workflows. It keeps all lives if workflow is "".
func Select(t *mountstate.Timeline, workflow string) {
	t.Lives = slices.DeleteFunc(t.Lives, func(l mountstate.Life) bool { return workflow != "" && l.Workflow != workflow })
}

// Latest removes the lives of earlier objects with the same name: the workflow was created again.
func Latest(t *mountstate.Timeline) {
	last := map[string]int{}
	for i, l := range t.Lives {
		if j, twice := last[l.ClientMount]; !twice || t.Lives[j].Started.Before(l.Started) {
			last[l.ClientMount] = i
		}
	}
	var kept []mountstate.Life
	for i, l := range t.Lives {
		if last[l.ClientMount] == i {
			kept = append(kept, l)
		}
	}
	t.Lives = kept
}

// Bound limits the number of lives and steps and the length of all texts, and corrects times that
// cannot be: a step whose end is before its start, a negative duration, or a year that JSON or a
// browser cannot show.
func Bound(t *mountstate.Timeline) {
	if extra := len(t.Lives) - maxLives; extra > 0 {
		t.Lives = t.Lives[extra:]
	}
	left := maxSteps
	for i := range t.Lives {
		l := &t.Lives[i]
		if extra := len(l.Steps) - left; extra > 0 {
			l.Steps, l.Dropped = l.Steps[:left], max(l.Dropped, 0)+extra
		}
		left -= len(l.Steps)
		for _, t := range []*time.Time{&l.Started, l.Ready, l.Ended} {
			possible(t)
		}
		l.ClientMount, l.Workflow, l.UID = text.Cut(l.ClientMount, maxName), text.Cut(l.Workflow, maxName), text.Cut(l.UID, maxName)
		for j := range l.Steps {
			s := &l.Steps[j]
			s.Path, s.Phase, s.Kind, s.Name = text.Cut(s.Path, maxPath), text.Cut(s.Phase, maxName), text.Cut(s.Kind, maxName), text.Cut(s.Name, maxName)
			s.Error = text.Clip(s.Error, maxError)
			possible(&s.Started)
			possible(&s.Finished)
			if s.Finished.Before(s.Started) {
				s.Finished = s.Started
			}
			s.Seconds, s.Tries = min(max(s.Seconds, 0), s.Finished.Sub(s.Started).Seconds()), max(s.Tries, 1)
		}
	}
}

// The range of times of a timeline. Differences within it do not overflow.
var (
	earliest = time.Unix(0, 0).UTC()
	latest   = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// possible moves a time into the range of times. nil has none.
func possible(t *time.Time) {
	switch {
	case t == nil:
	case t.Before(earliest):
		*t = earliest
	case t.After(latest):
		*t = latest
	}
}

// Phases are the phases in the order of their display.
var Phases = []string{mountstate.PhaseMount, mountstate.PhaseUnmount}

// steps returns the steps of a phase of a life, in the order of their start, and the time from the
// start of the first until the end of the last.
func steps(l *mountstate.Life, phase string) (list []mountstate.Step, started, finished time.Time) {
	for _, s := range l.Steps {
		if s.Phase == phase {
			list = append(list, s)
		}
	}
	slices.SortStableFunc(list, func(a, b mountstate.Step) int { return a.Started.Compare(b.Started) })
	for i, s := range list {
		if i == 0 {
			started = s.Started
		}
		if s.Finished.After(finished) {
			finished = s.Finished
		}
	}
	return list, started, finished
}

// Duration returns a duration in at most 6 characters: 350ms, 1.24s, 46.3s, 16m03s, 3h02m.
func Duration(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second-500*time.Microsecond:
		return fmt.Sprintf("%dms", d.Round(time.Millisecond).Milliseconds())
	case d < 10*time.Second-5*time.Millisecond:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d < time.Minute-50*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour-500*time.Millisecond:
		d = d.Round(time.Second)
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// Seconds converts the seconds of a document to a duration.
func Seconds(s float64) time.Duration {
	return time.Duration(min(max(s, 0), 1e9) * float64(time.Second))
}

// paths returns the mount paths of steps, in the order of their first start.
func paths(list []mountstate.Step) (all []string) {
	for _, s := range list {
		if !slices.Contains(all, s.Path) {
			all = append(all, s.Path)
		}
	}
	return all
}
