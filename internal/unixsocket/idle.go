package unixsocket

import (
	"sync"
	"time"
)

// Idle tells when nothing has been going on for a while. There is no timer
// while something is, and none after it has told until something was again. All
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

// NewIdle calls tell, in a goroutine of its own, once nothing has been going on
// for d; so also when nothing begins at all. If d is not positive it never does.
//
// Something may begin while tell runs, or just before: a tell that ends the
// process asks Listener.Quiesce first, which knows.
func NewIdle(d time.Duration, tell func()) *Idle {
	i := &Idle{tell: tell, after: d}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.arm()
	return i
}

// Also makes o hear of all that begins and ends here: one who wants to know after
// another time. It must be called before the first Enter.
func (i *Idle) Also(o *Idle) { i.also = o }

// Enter says that something begins, such as an RPC.
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

// Leave says that it ended: once for each Enter.
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

// Busy reports whether something is going on.
func (i *Idle) Busy() bool {
	if i == nil {
		return false
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.live > 0
}

// Set changes the time, not positive for never. What is idle is so from now on:
// it tells after d, also when it has told already.
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

// Stop ends the telling for good.
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
		current := i.timer == t // else something began when the time was up
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
