package unixsocket

import (
	"sync"
	"time"
)

// Idle reports when no activity has been in progress for some time. There is no timer
// during an activity, and none after the report until the next activity ends. All
// methods may be called by several goroutines; those of a nil *Idle do nothing.
type Idle struct {
	tell func()

	mu      sync.Mutex
	after   time.Duration
	live    int
	timer   *time.Timer // running, or nil
	stopped bool
	also    *Idle
}

// NewIdle calls tell, in a goroutine of its own, once no activity has been in progress
// for d, including when none ever starts. If d is not positive it never does.
//
// An activity may start while tell runs, or just before: a tell that ends the process
// must call Listener.Quiesce first.
func NewIdle(d time.Duration, tell func()) *Idle {
	i := &Idle{tell: tell, after: d}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.arm()
	return i
}

// Also passes every start and end on to o, which reports after another time. It must
// be called before the first Enter.
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

// Leave marks its end: once for each Enter.
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

// Set changes the time; not positive means never. It counts from now: an idle i reports
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

// Stop ends the reports for good.
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
		current := i.timer == t // else an activity started when the time was up
		if current {
			i.timer = nil
		}
		i.mu.Unlock()
		if current {
			i.tell()
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
