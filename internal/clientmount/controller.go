// Package clientmount reconciles this node's ClientMounts. It is the only package
// that connects Kubernetes with the machine: the watch delivers objects, package
// plan makes the steps, package node carries them out, and one status patch
// reports the result.
//
// One loop owns all state that is shared between objects (controller.go). Each
// object has at most one worker, which runs only while there is work (worker.go),
// so an idle node runs nothing and a mount that hangs does not delay the others.
// A worker runs one attempt (reconcile.go): it mounts (mount.go) or unmounts
// (unmount.go) by the steps of a plan (steps*.go). What must survive a crash is in
// a record on disk before the first effect (record.go).
//
// It must not know how requests are sent, how a command line is put together
// or how the kernel is asked; and it never writes a spec.
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

// Why a context of the controller has ended (context.Cause).
var (
	errStopped         = errors.New("the controller has stopped")
	errShutdownTimeout = errors.New("the shutdown time is over")
	errStopping        = errors.New("the daemon stops")
	errSuperseded      = errors.New("superseded by a newer state of the object")
)

// Options say what a Controller works on.
type Options struct {
	Node    string // this node's name, which is also the namespace
	Client  Client // the API server
	Host    Host
	Records *Records
	Limits  Limits
	// RetryRate is how many requests per second the retries of all failing
	// objects may send together (kube.Client.RetryRate); 0: no limit.
	RetryRate float64
	Plan      plan.Options
	Orphans   OrphanPolicy
	// How long running steps may continue after the daemon was told to stop.
	ShutdownTimeout time.Duration
	// Status gets one line whenever what it says has changed, from the loop.
	Status func(line string)
	// Synced is called once, when all objects of the node are known.
	Synced func()
	// Idle is called, in a goroutine of its own, when there has been nothing to
	// do for a while; once after each time that there was.
	Idle func()
	Log  *slog.Logger
}

// Controller owns the objects of this node. One loop changes them: methods that other
// goroutines call pass through do.
type Controller struct {
	o      Options
	rec    *reconciler
	limits atomic.Pointer[Limits]
	grace  atomic.Int64                  // the shutdown time, in nanoseconds
	mounts atomic.Pointer[kube.Resource] // in the version that is served, from Follow

	calls chan func()

	// What ends work. Each context is the parent of the next, and each attempt has
	// a child of steps, which also ends when the object gets a newer state
	// (errSuperseded).
	loop     context.Context // until Run returns: errStopped
	commands context.Context // until the shutdown time is over: errShutdownTimeout
	steps    context.Context // until the daemon is told to stop: errStopping

	endLoop, endCommands, endSteps context.CancelCauseFunc

	workers sync.WaitGroup

	// Owned by the loop.
	objects map[string]*object
	api     kube.State
	synced  bool
	// Objects that exist but cannot be read: nothing is done for them, and
	// what an older state of them mounted is no orphan.
	malformed map[string]bool
	line      string
	idle      idleTimer
}

// object is what the loop knows of one ClientMount.
type object struct {
	name     string
	newest   *dws.ClientMount // nil: gone from the API server
	ran      *dws.ClientMount // what the running or last attempt was based on
	running  bool             // an attempt is under way
	abandon  func()           // ends that attempt before its next step, because it is superseded
	timer    *time.Timer      // next attempt
	failures int              // attempts in a row that failed
	verify   bool             // the next attempt only checks that nothing has changed
	last     result
	work     *work
	orphan   *Record // instead of an object: a record that belongs to no object
}

// newController makes a controller; Run starts it.
func newController(o Options) *Controller {
	c := &Controller{
		o: o, calls: make(chan func()),
		objects: map[string]*object{}, malformed: map[string]bool{}, idle: idleTimer{f: o.Idle},
	}
	c.loop, c.endLoop = context.WithCancelCause(context.Background())
	c.commands, c.endCommands = context.WithCancelCause(c.loop)
	c.steps, c.endSteps = context.WithCancelCause(c.commands)
	c.limits.Store(&o.Limits)
	c.SetShutdownTimeout(o.ShutdownTimeout)
	c.rec = &reconciler{
		node: o.Node, host: o.Host, records: o.Records, plan: o.Plan, log: o.Log,
		stuck: newStuckTable(), registry: &registry{users: map[string]*user{}}, limits: func() Limits { return *c.limits.Load() },
		progressAfter: 5 * time.Second,
		remote: remote{
			client: o.Client, versions: new(kube.Versions),
			profiles: new(shared[*nnf.StorageProfile]), discoveries: new(shared[string]),
			mounts: func() kube.Resource { return *c.mounts.Load() },
		},
	}
	c.rec.stopping, c.rec.released = c.stopping, c.forgetOrphan
	c.rec.registry.alive = c.alive
	c.rec.registry.freed = func() { go c.do(c.unblock) }
	// Unreadable records are reported when the node's objects are known.
	records, _ := o.Records.List()
	for _, r := range records {
		c.rec.registry.keep(r.UID, r)
	}
	return c
}

// SetLimits changes times and counts for the attempts that start from now on.
func (c *Controller) SetLimits(l Limits) { c.limits.Store(&l) }

// SetShutdownTimeout changes how long running steps may continue when the daemon
// is told to stop.
func (c *Controller) SetShutdownTimeout(d time.Duration) { c.grace.Store(int64(d)) }

// ShutdownTimeout is that time.
func (c *Controller) ShutdownTimeout() time.Duration { return time.Duration(c.grace.Load()) }

// Run is the loop. It returns when ctx has ended and no worker is left, or
// when the shutdown time is over; workers that are left then hang in the
// kernel. Mounts are never touched by stopping.
func (c *Controller) Run(ctx context.Context) error {
	defer c.endLoop(errStopped)
	for {
		select {
		case f := <-c.calls:
			f()
			c.publishLine()
			c.checkIdle()
		case <-ctx.Done():
			c.idle.stop()
			return c.drain()
		}
	}
}

// stopping reports whether no new attempt may start.
func (c *Controller) stopping() bool { return c.steps.Err() != nil }

// drain lets the running steps end, within the shutdown time.
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
				return fmt.Errorf("commands are still running after the shutdown time: %s", c.runningNames())
			}
			// Running commands are now told to end; they get a moment.
			c.endCommands(errShutdownTimeout)
			limit.Reset(3 * time.Second)
		}
	}
}

// do runs f in the loop; it is lost when the loop has ended.
func (c *Controller) do(f func()) {
	select {
	case c.calls <- f:
	case <-c.loop.Done():
	}
}

// Probe sends one call through the loop: proof that it makes progress.
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

// handler connects a watch with the loop, which handles each event.
func (c *Controller) handler() kube.Handler[dws.ClientMount] {
	return kube.Handler[dws.ClientMount]{
		Replace:   func(list []*dws.ClientMount) { c.do(func() { c.replace(list) }) },
		Upsert:    func(cm *dws.ClientMount) { c.do(func() { c.upsert(cm) }) },
		Delete:    func(_, name string) { c.do(func() { c.gone(name) }) },
		Malformed: func(_, name string, _ error) { c.do(func() { c.malformed[name] = true }) },
	}
}

// Follow supplies the controller with the objects of this node until ctx ends.
// It finds the served version first, and again when the server stops serving
// it. It retries while the API server is down.
func (c *Controller) Follow(ctx context.Context) error {
	failures := 0
	for {
		version, err := c.o.Client.Served(ctx, api.GroupDWS, api.VersionsDWS)
		if err == nil {
			failures = 0
			r := mountsResource(version)
			c.mounts.Store(&r)
			err = c.o.Client.Watch(ctx, r, c.o.Node, c.apiState, c.handler())
		} else if ctx.Err() == nil {
			c.apiState(kube.State{LastError: err, Since: time.Now()})
		}
		if ctx.Err() != nil {
			return nil
		}
		failures++
		c.o.Log.Debug("the watch ended, finding the served version again", "error", err, daemon.EventID(eventAPI))
		kube.Pause(ctx, pause(failures, c.limits.Load().RetryMax, false))
		if ctx.Err() != nil {
			return nil
		}
	}
}

// replace takes the complete list of the node's objects.
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

// upsert takes the newest state of an object.
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

// gone handles an object that the API server no longer has.
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

// drop forgets an object; what it left mounted becomes an orphan.
func (c *Controller) drop(o *object) {
	o.stopTimer()
	delete(c.objects, o.name)
	if c.synced {
		c.findOrphans()
	}
}

// changed reports whether the difference between two states of an object asks
// for action. Our own writes, and what others do to status or annotations, do
// not: otherwise every write would be followed by another pass.
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
