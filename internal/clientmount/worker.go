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

// firstPause is the pause after the first failure. It doubles with each further failure,
// up to Limits.RetryMax.
const firstPause = 250 * time.Millisecond

// start runs one attempt on the newest state of an object in a new goroutine. The number
// of concurrent attempts is not limited: an attempt that hangs in the kernel must not
// delay another one.
func (c *Controller) start(o *object) {
	if c.stopping() || o.running {
		return
	}
	o.stopTimer()
	c.idle.stop()
	if o.work == nil || o.work.uid != string(o.newest.UID) {
		if o.work != nil {
			c.o.Records.ForgetFailure(o.work.uid)
		}
		o.work = &work{uid: string(o.newest.UID)}
		o.failures = 0
	}
	// The attempt gets a copy, because it updates the list of finalizers.
	cm := o.newest.DeepCopyObject().(*dws.ClientMount)
	if o.ran != nil && changed(o.ran, o.newest) {
		o.failures, o.verify = 0, false
	}
	priority := o.priority()
	o.work.mayShare = o.first() && !o.last.failed && cm.Spec.DesiredState == dws.Mounted && cm.DeletionTimestamp == nil
	o.ran, o.running, o.verify = o.newest, true, false
	steps, end := context.WithCancelCause(c.steps)
	o.abandon = func() { end(errSuperseded) }
	// An interruption is followed by a first attempt, or by the shutdown of the daemon,
	// neither of which may wait for the requests of a retry.
	keepPriority := context.AfterFunc(steps, priority.Raise)
	w := o.work
	c.workers.Go(func() {
		defer end(nil)
		res := c.rec.reconcile(kube.WithPriority(c.commands, priority), steps, w, cm)
		keepPriority()
		c.do(func() { c.ended(o, res) })
	})
}

// ended handles the end of an attempt: it starts or schedules the next one, if any.
func (c *Controller) ended(o *object, res result) {
	o.running, o.abandon, o.last = false, nil, res
	c.metrics.attempt(res)
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
		o.failures = 0 // the path has become free in the meantime
		c.start(o)
	case res.retry:
		o.failures++
		c.startAfter(o, c.rec.busy.pause(o.work.uid, c.retryPause(o, res.permanent)))
	default:
		o.failures = 0
		if v := c.limits.Load().Verify; v > 0 && !res.finished && o.newest.Spec.DesiredState == dws.Mounted {
			o.verify = true
			c.startAfter(o, jitter(v, 0.1))
		}
	}
}

// first reports whether the next attempt is the first one since the object was created
// or changed. An object that was failing when the daemon started is most likely still
// failing, so its first attempt is treated as a retry.
func (o *object) first() bool {
	return o.failures == 0 && !o.verify && (o.ran != nil || !knownFailing(o.newest))
}

// priority returns the priority of the requests of the next attempt.
func (o *object) priority() *kube.Priority {
	switch {
	case o.first():
		return kube.FirstPriority()
	case o.ran == nil:
		return kube.RetryPriority(lateFailures)
	}
	return kube.RetryPriority(o.failures)
}

// knownFailing reports whether the published status has an error for the desired state
// that the object still has.
func knownFailing(cm *dws.ClientMount) bool {
	return cm.Status.Error != nil && cm.DeletionTimestamp == nil &&
		!slices.ContainsFunc(cm.Status.Mounts, func(m dws.MountStatus) bool { return m.State != cm.Spec.DesiredState })
}

// lateFailures is the number of consecutive failures after which an object shares the
// rate of retries with all failing objects, rather than only with those that have failed
// at most as often.
const lateFailures = 8

// retrySlack keeps the retries a little below their rate, because some attempts need
// more than one request.
const retrySlack = 1.25

// retryPause returns the pause before the next attempt of a failed object. It grows with
// the number of failing objects: together they start no more attempts than RetryRate
// allows, so requests do not queue up. A corrected profile is noticed after RetryMax, or
// after retrySlack × failing objects / RetryRate seconds, whichever is longer. An object
// that has failed only a few times does not wait for objects that have failed more often.
func (c *Controller) retryPause(o *object, permanent bool) time.Duration {
	d := pause(o.failures, c.limits.Load().RetryMax, permanent)
	if c.o.RetryRate <= 0 {
		return d
	}
	competing := 0
	for _, other := range c.objects {
		if other.orphan == nil && other.failures > 0 && (permanent || o.failures >= lateFailures || other.failures <= o.failures) {
			competing++
		}
	}
	return max(d, jitter(time.Duration(float64(competing)*retrySlack/c.o.RetryRate*float64(time.Second)), 0.2))
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

// resumeSpread is the time over which attempts restart when the API server is available
// again, so that the nodes of a cluster do not send all requests at the same time.
const resumeSpread = time.Second

// resume shortens the pauses of objects whose last attempt failed because of a request
// to the API server.
func (c *Controller) resume() {
	for _, o := range c.objects {
		if o.timer != nil && o.last.api && o.newest != nil {
			o.failures = 0
			c.startAfter(o, jitter(resumeSpread, 1))
		}
	}
}

// unblock starts attempts for the objects whose conflicting path has become free.
func (c *Controller) unblock() {
	for _, o := range c.objects {
		if by := o.last.blocked; o.timer != nil && by != nil && o.newest != nil && !c.rec.registry.holds(by.uid, by.otherPath) {
			o.failures = 0
			c.start(o)
		}
	}
}

// pause returns the time before the next attempt, with jitter so that the nodes of a job
// do not retry at the same time. After a permanent failure it is most, since a retry helps
// only if an administrator has corrected the profile.
func pause(failures int, most time.Duration, permanent bool) time.Duration {
	d := most
	if n := failures - 1; n < 16 && !permanent {
		d = min(firstPause<<n, most)
	}
	return jitter(d, 0.2)
}

// jitter shortens d by a random fraction of it, at most by part.
func jitter(d time.Duration, part float64) time.Duration {
	return time.Duration(float64(d) * (1 - part*rand.Float64()))
}

// Running returns the names of the ClientMounts with a running attempt, or "unknown" if
// the loop does not respond within a second. Any goroutine may call it.
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

// idleAfter is how long no attempt must have run before the daemon is considered idle.
// It is longer than the pauses between the steps of a job's start.
const idleAfter = 5 * time.Second

// idleTimer calls f once after each period of work: idleAfter after the last attempt or
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

// start is called when no attempt runs; only the first call after stop has an effect.
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
