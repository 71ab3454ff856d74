// Package clientmount reconciles this node's ClientMounts. It is the only package
// that connects Kubernetes with the machine: the watch delivers objects, package
// plan computes the steps, package node carries them out, and one status patch
// reports the result.
//
// One loop owns all state that is shared between objects (controller.go). Each
// object has at most one worker, which runs only while there is work (worker.go).
// So an idle node runs nothing, and a mount that hangs does not delay other objects.
// A worker runs one attempt (reconcile.go): it mounts (mount.go) or unmounts
// (unmount.go) by the steps of a plan (steps*.go). State that must survive a crash
// is saved in a record before the first effect (record.go).
//
// The package does not depend on how requests are sent, how command lines are built,
// or how the kernel is queried. It never writes a spec.
package clientmount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Causes of the controller's contexts (context.Cause).
var (
	errStopped         = errors.New("the controller has stopped")
	errShutdownTimeout = errors.New("the shutdown timeout has expired")
	errStopping        = errors.New("the daemon is stopping")
	errSuperseded      = errors.New("superseded by a newer state of the object")
)

// Options configure a Controller.
type Options struct {
	Node    string // this node's name, which is also the namespace
	Client  Client // the API server
	Host    Host
	Records *Records
	Limits  Limits
	// RetryRate is the number of requests per second that the retries of all failing
	// objects may send together (kube.Client.RetryRate); 0: no limit.
	RetryRate float64
	Plan      plan.Options
	Orphans   OrphanPolicy
	History   HistoryLimits
	// MetricsFile is the file for the textfile collector; empty: none.
	MetricsFile string
	// ShutdownTimeout is how long running steps may continue while the daemon stops.
	ShutdownTimeout time.Duration
	// Status is called from the loop with each new status line.
	Status func(line string)
	// Synced is called once, when the list of the node's objects is complete.
	Synced func()
	// Idle is called in a separate goroutine, once after each period of work, when
	// there has been no work for idleAfter.
	Idle func()
	Log  *slog.Logger
}

// Controller owns the objects of this node. Only its loop changes them; other goroutines
// use do.
type Controller struct {
	o      Options
	rec    *reconciler
	limits atomic.Pointer[Limits]
	grace  atomic.Int64                  // the shutdown timeout, in nanoseconds
	mounts atomic.Pointer[kube.Resource] // in the served version, which Follow finds

	calls chan func()

	// The contexts of work. Each one is the parent of the next. Each attempt has a child
	// of steps, which is also cancelled when the object changes (errSuperseded).
	loop     context.Context // until Run returns: errStopped
	commands context.Context // until the shutdown timeout has expired: errShutdownTimeout
	steps    context.Context // until the daemon stops: errStopping

	endLoop, endCommands, endSteps context.CancelCauseFunc

	workers sync.WaitGroup

	// Owned by the loop.
	objects map[string]*object
	api     kube.State
	synced  bool
	// Names of objects that exist but cannot be decoded. Nothing is done for them, and
	// their recorded mounts are not orphans.
	malformed map[string]bool
	line      string
	idle      idleTimer
	state     *daemonState // nil: not reported
	metrics   *metrics     // nil: off
}

// object is the state of one ClientMount in the loop.
type object struct {
	name     string
	newest   *dws.ClientMount // nil: deleted
	ran      *dws.ClientMount // state that the running or last attempt works on
	running  bool             // an attempt is running
	abandon  func()           // ends that attempt before its next step, because it is superseded
	timer    *time.Timer      // starts the next attempt
	failures int              // consecutive failed attempts
	verify   bool             // the next attempt only checks that nothing has changed
	last     result
	work     *work
	orphan   *Record // set instead of an object: a record that belongs to no object
}

// NewController returns a controller. Run and Follow start it; both are required.
func NewController(o Options) *Controller {
	c := &Controller{
		o: o, calls: make(chan func()),
		objects: map[string]*object{}, malformed: map[string]bool{}, idle: idleTimer{f: o.Idle}, metrics: newMetrics(o.MetricsFile),
	}
	c.loop, c.endLoop = context.WithCancelCause(context.Background())
	c.commands, c.endCommands = context.WithCancelCause(c.loop)
	c.steps, c.endSteps = context.WithCancelCause(c.commands)
	c.limits.Store(&o.Limits)
	c.SetShutdownTimeout(o.ShutdownTimeout)
	c.rec = &reconciler{
		node: o.Node, host: o.Host, records: o.Records, plan: o.Plan, log: o.Log,
		stuck: newStuckTable(), busy: &busyTable{by: map[busyKey]*busyMount{}}, registry: &registry{users: map[string]*user{}}, limits: func() Limits { return *c.limits.Load() },
		progressAfter: 5 * time.Second, metrics: c.metrics,
		remote: remote{
			client: o.Client, versions: new(kube.Versions),
			profiles: new(shared[*nnf.StorageProfile]), discoveries: new(shared[string]),
			mounts: func() kube.Resource { return *c.mounts.Load() },
		},
	}
	c.rec.stopping, c.rec.released = c.stopping, c.forgetOrphan
	c.rec.registry.alive = c.alive
	c.rec.registry.freed = func() { go c.do(c.unblock) }
	// Unreadable records are reported later, by findOrphans.
	records, _ := o.Records.List()
	for _, r := range records {
		c.rec.registry.keep(r.UID, r)
	}
	return c
}

// SetLimits changes the limits for attempts that start from now on.
func (c *Controller) SetLimits(l Limits) { c.limits.Store(&l) }

// SetShutdownTimeout changes how long running steps may continue while the daemon stops.
func (c *Controller) SetShutdownTimeout(d time.Duration) { c.grace.Store(int64(d)) }

// ShutdownTimeout returns how long running steps may continue while the daemon stops.
func (c *Controller) ShutdownTimeout() time.Duration { return time.Duration(c.grace.Load()) }

// Run runs the loop. After the end of ctx it returns when no worker is left, or when the
// shutdown timeout has expired; workers that are left then hang in the kernel. Stopping
// does not affect mounts.
func (c *Controller) Run(ctx context.Context) error {
	defer c.endLoop(errStopped)
	c.publishMetrics()
	for {
		select {
		case f := <-c.calls:
			f()
			c.publishLine()
			c.publishMetrics()
			c.checkIdle()
		case <-ctx.Done():
			c.idle.stop()
			defer c.closeMetrics()
			return c.drain()
		}
	}
}

// stopping reports whether no new attempt may start.
func (c *Controller) stopping() bool { return c.steps.Err() != nil }

// drain waits until the running steps have finished, at most for the shutdown timeout.
func (c *Controller) drain() error {
	c.endSteps(errStopping)
	for _, o := range c.objects {
		o.stopTimer()
	}
	done := make(chan struct{})
	go func() { c.workers.Wait(); close(done) }()
	limit := time.NewTimer(c.ShutdownTimeout())
	defer limit.Stop()
	for {
		select {
		case f := <-c.calls:
			f()
		case <-done:
			return nil
		case <-limit.C:
			if c.commands.Err() != nil {
				return fmt.Errorf("commands are still running after the shutdown timeout: %s", c.runningNames())
			}
			// Running commands are now terminated, which takes a moment.
			c.endCommands(errShutdownTimeout)
			limit.Reset(3 * time.Second)
		}
	}
}

// do runs f in the loop. It drops f if the loop has ended.
func (c *Controller) do(f func()) {
	select {
	case c.calls <- f:
	case <-c.loop.Done():
	}
}

// Probe returns nil when the loop has processed one call, which proves that it makes
// progress.
func (c *Controller) Probe(ctx context.Context) error {
	done := make(chan struct{})
	select {
	case c.calls <- func() { close(done) }:
	case <-c.loop.Done():
		return context.Cause(c.loop)
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// handler passes the events of a watch to the loop.
func (c *Controller) handler() kube.Handler[dws.ClientMount] {
	return kube.Handler[dws.ClientMount]{
		Replace:   func(list []*dws.ClientMount) { c.do(func() { c.replace(list) }) },
		Upsert:    func(cm *dws.ClientMount) { c.do(func() { c.upsert(cm) }) },
		Delete:    func(_, name string) { c.do(func() { c.gone(name) }) },
		Malformed: func(_, name string, _ error) { c.do(func() { c.malformed[name] = true }) },
	}
}

// versionLasts is how long a watch must have worked before the loss of its version is the
// effect of an upgrade and not one of several failures in a row.
const versionLasts = time.Minute

// Follow watches the objects of this node until ctx ends. It starts with the newest known
// version, which most servers serve, and looks up the version when the server does not, or
// no longer, serve it. It retries while the API server is down.
func (c *Controller) Follow(ctx context.Context) error {
	version, failures := api.VersionsDWS[0], 0
	var connected time.Time
	state := func(s kube.State) {
		switch {
		case s.Connected:
			connected = time.Now()
		case errors.Is(s.LastError, kube.ErrVersionGone):
			if !connected.IsZero() && time.Since(connected) >= versionLasts {
				failures = 0
			}
			if failures == 0 {
				return // normal with an older or newer server; the lookup reports a failure
			}
		}
		c.apiState(s)
	}
	for {
		r := Resource(version)
		c.mounts.Store(&r)
		err := c.o.Client.Watch(ctx, r, c.o.Node, state, c.handler())
		for ctx.Err() == nil {
			c.o.Log.Debug("the watch ended; looking up the served version", "error", err, daemon.EventID(eventAPI))
			if failures > 0 {
				kube.Pause(ctx, pause(failures, c.limits.Load().RetryMax, false))
			}
			failures++
			if version, err = c.o.Client.Served(ctx, Resource(""), api.VersionsDWS); err == nil {
				break
			}
			if ctx.Err() == nil {
				c.apiState(kube.State{LastError: err, Since: time.Now()})
			}
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}

// replace handles the complete list of the node's objects.
func (c *Controller) replace(list []*dws.ClientMount) {
	known := map[string]bool{}
	for _, cm := range list {
		known[cm.Name] = true
		c.upsert(cm)
	}
	for name, o := range c.objects {
		if o.newest != nil && !known[name] && !c.malformed[name] {
			c.gone(name)
		}
	}
	c.findOrphans()
	if c.synced {
		return
	}
	c.synced = true
	c.o.Log.Info("ready: the ClientMounts of this node are known", "clientmounts", len(list), daemon.EventID(eventReady))
	c.idle.stop()
	if c.o.Synced != nil {
		c.o.Synced()
	}
}

// upsert handles the newest state of an object.
func (c *Controller) upsert(cm *dws.ClientMount) {
	delete(c.malformed, cm.Name)
	o := c.objects[cm.Name]
	if o == nil {
		o = &object{name: cm.Name}
		c.objects[cm.Name] = o
	}
	o.newest = cm
	switch {
	case o.running && changed(o.ran, cm):
		o.abandon()
	case !o.running && (o.ran == nil || changed(o.ran, cm)):
		c.start(o)
	}
}

// gone handles the deletion of an object.
func (c *Controller) gone(name string) {
	delete(c.malformed, name)
	o := c.objects[name]
	if o == nil || o.orphan != nil {
		return
	}
	o.newest = nil
	if o.running {
		o.abandon()
		return
	}
	c.drop(o)
}

// drop removes an object from the table. Its remaining mounts become orphans.
func (c *Controller) drop(o *object) {
	o.stopTimer()
	delete(c.objects, o.name)
	if o.work != nil {
		c.o.Records.ForgetFailure(o.work.uid)
	}
	if c.synced {
		c.findOrphans()
	}
}

// changed reports whether two states of an object differ in a way that requires an
// attempt. Changes of status and annotations do not; otherwise each of our own writes
// would cause another attempt.
func changed(a, b *dws.ClientMount) bool {
	return a.UID != b.UID || a.Generation != b.Generation ||
		(a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) || !a.SameLabels(b)
}

func (o *object) stopTimer() {
	if o.timer != nil {
		o.timer.Stop()
		o.timer = nil
	}
}
