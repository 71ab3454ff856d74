package clientmount

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// firstPause is the pause after a first failure; it doubles up to
// Limits.RetryMax.
const firstPause = 250 * time.Millisecond

// start runs one attempt on the newest state of an object in a goroutine of
// its own. There is no common limit on how many run: one that hangs in the
// kernel must not take a place from another.
func (c *Controller) start(o *object) {
	if c.stopping.Load() || o.running {
		return
	}
	o.stopTimer()
	c.calm.work()
	if o.work == nil || o.work.uid != string(o.newest.UID) {
		o.work = &work{uid: string(o.newest.UID)}
		o.failures = 0
	}
	// The attempt gets a copy: it keeps the list of finalizers up to date.
	cm := o.newest.DeepCopyObject().(*dws.ClientMount)
	o.ran, o.running = o.newest, true
	waits, cancel := context.WithCancel(c.commands)
	o.cancel = cancel
	w := o.work
	c.workers.Go(func() {
		defer cancel()
		res := c.rec.reconcile(c.commands, waits, c.stopping.Load, w, cm)
		c.do(func() { c.ended(o, res) })
	})
}

// ended decides what follows an attempt.
func (c *Controller) ended(o *object, res result) {
	o.running, o.cancel, o.last = false, nil, res
	if c.stopping.Load() {
		return
	}
	switch {
	case o.newest == nil:
		c.drop(o)
	case changed(o.ran, o.newest):
		o.failures = 0
		c.start(o)
	case res.retry:
		o.failures++
		c.startAfter(o, pause(o.failures, c.limits.Load().RetryMax, res.hopeless))
	default:
		o.failures = 0
		if v := c.limits.Load().Verify; v > 0 && !res.finished && o.newest.Spec.DesiredState == dws.Mounted {
			c.startAfter(o, jitter(v, 0.1))
		}
	}
}

func (c *Controller) startAfter(o *object, d time.Duration) {
	o.stopTimer()
	o.timer = time.AfterFunc(d, func() {
		c.do(func() {
			if o.newest != nil && c.objects[o.name] == o {
				c.start(o)
			}
		})
	})
}

// resumeSpread is the time over which attempts begin again when the API server
// is back, so that the nodes of a machine do not come all at once.
const resumeSpread = time.Second

// resume ends the pauses of attempts that failed for want of the API server.
func (c *Controller) resume() {
	for _, o := range c.objects {
		if o.timer != nil && o.last.api && o.newest != nil {
			o.failures = 0
			c.startAfter(o, jitter(resumeSpread, 1))
		}
	}
}

// unblock starts the attempts again that waited for a path to become free.
func (c *Controller) unblock() {
	for _, o := range c.objects {
		if o.timer != nil && o.last.blocked && o.newest != nil {
			c.start(o)
		}
	}
}

// pause is the time before the next attempt, with jitter so that the nodes of
// a job do not come back together. A hopeless case is looked at again only in
// case the administrator corrected the profile.
func pause(failures int, most time.Duration, hopeless bool) time.Duration {
	d := most
	if n := failures - 1; n < 16 && !hopeless {
		d = min(firstPause<<n, most)
	}
	return jitter(d, 0.2)
}

// jitter spreads d by ± part of it, never above d for the caller's ceiling.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 - part*rand.Float64()))
}

// Running names the ClientMounts that are being worked on; it may be called
// from anywhere, and says so when the loop does not answer.
func (c *Controller) Running() string {
	names := make(chan string, 1)
	select {
	case c.calls <- func() { names <- c.runningNames() }:
		return <-names
	case <-c.stopped:
		return "nothing"
	case <-time.After(time.Second):
		return "unknown"
	}
}

func (c *Controller) runningNames() string {
	var names []string
	for _, o := range c.objects {
		if o.running {
			names = append(names, o.name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
