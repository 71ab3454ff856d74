package clientmount

import (
	"context"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// firstPause is the pause after a first failure; it doubles up to
// Limits.RetryMax.
const firstPause = 250 * time.Millisecond

// start runs one attempt on the newest state of an object in a goroutine of
// its own. There is no common limit on how many run: one that hangs in the
// kernel must not take a place from another.
func (c *Controller) start(o *object) {
	if c.stopping() || o.running {
		return
	}
	o.stopTimer()
	c.idle.stop()
	if o.work == nil || o.work.uid != string(o.newest.UID) {
		o.work = &work{uid: string(o.newest.UID)}
		o.failures = 0
	}
	// The attempt gets a copy: it keeps the list of finalizers up to date.
	cm := o.newest.DeepCopyObject().(*dws.ClientMount)
	if o.ran != nil && changed(o.ran, o.newest) {
		o.failures, o.verify = 0, false
	}
	priority := o.priority()
	o.work.mayShare = o.first() && !o.last.failed && cm.Spec.DesiredState == dws.Mounted && cm.DeletionTimestamp == nil
	o.ran, o.running, o.verify = o.newest, true, false
	steps, end := context.WithCancelCause(c.steps)
	o.abandon = func() { end(errSuperseded) }
	// What follows is a first attempt, or the end of the daemon: it must not wait for
	// the requests of a retry.
	keepPriority := context.AfterFunc(steps, priority.Raise)
	w := o.work
	c.workers.Go(func() {
		defer end(nil)
		res := c.rec.reconcile(kube.WithPriority(c.commands, priority), steps, w, cm)
		keepPriority()
		c.do(func() { c.ended(o, res) })
	})
}

// ended decides what follows an attempt.
func (c *Controller) ended(o *object, res result) {
	o.running, o.abandon, o.last = false, nil, res
	if c.stopping() {
		return
	}
	switch {
	case o.newest == nil:
		c.drop(o)
	case changed(o.ran, o.newest):
		o.failures = 0
		replaced := o.ran.UID != o.newest.UID
		c.start(o)
		if replaced && c.synced {
			c.findOrphans()
		}
	case res.blocked != nil && !c.rec.registry.holds(res.blocked.uid, res.blocked.otherPath):
		o.failures = 0 // what it waits for has happened in between
		c.start(o)
	case res.retry:
		o.failures++
		c.startAfter(o, c.retryPause(o, res.hopeless))
	default:
		o.failures = 0
		if v := c.limits.Load().Verify; v > 0 && !res.finished && o.newest.Spec.DesiredState == dws.Mounted {
			o.verify = true
			c.startAfter(o, jitter(v, 0.1))
		}
	}
}

// first reports whether the next attempt is the first one since the object was
// made or changed. An object that was failing when the daemon started is most
// likely still failing, so its attempt counts as a retry.
func (o *object) first() bool {
	return o.failures == 0 && !o.verify && (o.ran != nil || !knownFailing(o.newest))
}

// priority returns that of the requests of the next attempt.
func (o *object) priority() *kube.Priority {
	switch {
	case o.first():
		return kube.FirstPriority()
	case o.ran == nil:
		return kube.RetryPriority(lateFailures)
	}
	return kube.RetryPriority(o.failures)
}

// knownFailing reports whether the published status is the failure of what the
// object still asks for.
func knownFailing(cm *dws.ClientMount) bool {
	return cm.Status.Error != nil && cm.DeletionTimestamp == nil &&
		!slices.ContainsFunc(cm.Status.Mounts, func(m dws.MountStatus) bool { return m.State != cm.Spec.DesiredState })
}

// lateFailures is the number of failures in a row from which on an object
// shares the budget of retries with all that fail, and not only with those that
// have failed as rarely as it has.
const lateFailures = 8

// retrySlack keeps the retries a little below their budget, so that those that
// need more than one request fit in.
const retrySlack = 1.25

// retryPause is the pause before the next attempt of an object that failed. The
// more objects fail, the longer it is: together they start no more attempts
// than the node's budget of retries has requests for, so nothing piles up
// before the API server, and a corrected profile is noticed after RetryMax or
// after retrySlack × failing objects / RetryRate seconds, whichever is longer.
// An object that has just started to fail does not wait for those that have failed
// for long.
func (c *Controller) retryPause(o *object, hopeless bool) time.Duration {
	d := pause(o.failures, c.limits.Load().RetryMax, hopeless)
	if c.o.RetryRate <= 0 {
		return d
	}
	rivals := 0
	for _, other := range c.objects {
		if other.orphan == nil && other.failures > 0 && (hopeless || o.failures >= lateFailures || other.failures <= o.failures) {
			rivals++
		}
	}
	return max(d, jitter(time.Duration(float64(rivals)*retrySlack/c.o.RetryRate*float64(time.Second)), 0.2))
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

// resumeSpread is the time over which attempts start again when the API server
// answers, so that the nodes of a cluster do not send their requests all at once.
const resumeSpread = time.Second

// resume ends the pauses of attempts that failed because the API server did not
// answer.
func (c *Controller) resume() {
	for _, o := range c.objects {
		if o.timer != nil && o.last.api && o.newest != nil {
			o.failures = 0
			c.startAfter(o, jitter(resumeSpread, 1))
		}
	}
}

// unblock starts the attempts that waited for a path that is free now.
func (c *Controller) unblock() {
	for _, o := range c.objects {
		if by := o.last.blocked; o.timer != nil && by != nil && o.newest != nil && !c.rec.registry.holds(by.uid, by.otherPath) {
			o.failures = 0 // what it waited for has happened
			c.start(o)
		}
	}
}

// pause is the time before the next attempt, with jitter so that the nodes of
// a job do not retry at the same time. A hopeless case is retried only in case
// the administrator corrected the profile.
func pause(failures int, most time.Duration, hopeless bool) time.Duration {
	d := most
	if n := failures - 1; n < 16 && !hopeless {
		d = min(firstPause<<n, most)
	}
	return jitter(d, 0.2)
}

// jitter shortens d by a random part of it, at most by the given one.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 - part*rand.Float64()))
}

// Running names the ClientMounts that are being worked on; "unknown" if the loop
// does not answer within a second. It may be called from anywhere.
func (c *Controller) Running() string {
	names := make(chan string, 1)
	select {
	case c.calls <- func() { names <- c.runningNames() }:
		return <-names
	case <-c.loop.Done():
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

// idleAfter is how long no attempt must have run before the daemon counts as
// idle: longer than the pauses between the steps of a job's start.
const idleAfter = 5 * time.Second

// idleTimer calls f once when work has ended, some time after the last attempt or
// the first complete list. The timer exists only until then.
type idleTimer struct {
	f     func()
	timer *time.Timer
	busy  bool
}

// stop is called when work starts.
func (t *idleTimer) stop() {
	t.busy = true
	if t.timer != nil {
		t.timer.Stop()
		t.timer = nil
	}
}

// start is called when no attempt runs; only the first call after stop counts.
func (t *idleTimer) start() {
	if t.busy && t.f != nil {
		t.busy = false
		t.timer = time.AfterFunc(idleAfter, t.f)
	}
}

// checkIdle is called by the loop after each call.
func (c *Controller) checkIdle() {
	for _, o := range c.objects {
		if o.running {
			return
		}
	}
	c.idle.start()
}
