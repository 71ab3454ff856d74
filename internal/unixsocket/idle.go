package unixsocket

import (
	"sync"
	"time"
)

// Idle reports when no activity has been in progress for some time. It has no timer
// during an activity, and none after a report until the next activity ends. Its methods
// may be called concurrently; those of a nil *Idle do nothing.
type Idle struct {
	report func()

	mu      sync.Mutex
	after   time.Duration
	live    int
	timer   *time.Timer // running, or nil
	stopped bool
	also    *Idle
}

// NewIdle returns an Idle that calls report, in a separate goroutine, when no activity
// has been in progress for d, even if none ever starts. If d is not positive, it never
// calls report.
//
// An activity can start while report runs, or just before: a report function that makes
// the process exit must call Listener.Quiesce first.
func NewIdle(d time.Duration, report func()) *Idle {
	i := &Idle{report: report, after: d}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.arm()
	return i
}

// Also forwards every start and end of an activity to o, which reports after a different
// time. It must be called before the first Enter.
func (i *Idle) Also(o *Idle) { i.also = o }

// Enter marks the start of an activity, such as an RPC.
func (i *Idle) Enter() {
	if i == nil {
		return
	}
	i.also.Enter()
	i.mu.Lock()
	defer i.mu.Unlock()
	i.live++
	i.disarm()
}

// Leave marks the end of an activity, once for each Enter.
func (i *Idle) Leave() {
	if i == nil {
		return
	}
	i.also.Leave()
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.live--; i.live < 0 {
		panic("unixsocket: Idle.Leave without Enter")
	}
	i.arm()
}

// Busy reports whether an activity is in progress.
func (i *Idle) Busy() bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live > 0
}

// Set changes the time; not positive means never. The time starts now: an idle i reports
// after d, even if it has reported already.
func (i *Idle) Set(d time.Duration) {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.after != d {
		i.after = d
		i.disarm()
		i.arm()
	}
}

// Stop ends the reports permanently.
func (i *Idle) Stop() {
	if i == nil {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.stopped = true
	i.disarm()
}

func (i *Idle) arm() {
	if i.live > 0 || i.stopped || i.after <= 0 {
		return
	}
	var t *time.Timer
	t = time.AfterFunc(i.after, func() {
		i.mu.Lock()
		current := i.timer == t // false if an activity started as the timer fired
		if current {
			i.timer = nil
		}
		i.mu.Unlock()
		if current {
			i.report()
		}
	})
	i.timer = t
}

func (i *Idle) disarm() {
	if i.timer != nil {
		i.timer.Stop()
		i.timer = nil
	}
}
