package clientmount

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
)

// OrphanPolicy says what happens to mounts of ours whose ClientMount is gone.
type OrphanPolicy string

// Policies. To report is the default: data of a job may still be in use.
const (
	OrphansReport  OrphanPolicy = "report"
	OrphansUnmount OrphanPolicy = "unmount"
)

// orphanPrefix keeps the names of orphans apart from those of objects, which
// cannot hold a blank.
const orphanPrefix = "orphan "

// findOrphans looks for records that belong to no object. It is called when the
// complete list is known and when an object is gone.
func (c *Controller) findOrphans() {
	if c.stopping() {
		return
	}
	records, err := c.o.Records.List()
	if err != nil {
		c.o.Log.Error("cannot read all records of mounts", "error", err, daemon.EventID(eventRecord))
	}
	asked := map[string]bool{}
	for _, o := range c.objects {
		if o.newest != nil {
			asked[string(o.newest.UID)] = true
		}
	}
	for _, r := range records {
		key := orphanPrefix + r.UID
		if asked[r.UID] || c.malformed[r.Name] || c.objects[key] != nil || c.busyWith(r.UID) {
			continue
		}
		if !r.pending() {
			_ = c.o.Records.Remove(r.UID)
			continue
		}
		o := &object{name: key, orphan: r}
		c.objects[key] = o
		paths := orphanPaths(r)
		if c.o.Orphans != OrphansUnmount {
			c.o.Log.Warn("mounts of a ClientMount that no longer exists", "clientmount", r.Name, "workflow", r.Workflow, "paths", paths,
				"hint", "unmount them manually when the job is over, or set mount.orphans = \"unmount\"", daemon.EventID(eventOrphan))
			continue
		}
		c.unmountOrphan(o)
	}
}

// busyWith reports whether an attempt for that uid still runs.
func (c *Controller) busyWith(uid string) bool {
	for _, o := range c.objects {
		if o.running && o.work != nil && o.work.uid == uid {
			return true
		}
	}
	return false
}

// unmountOrphan undoes a record in a worker of its own.
func (c *Controller) unmountOrphan(o *object) {
	if c.stopping() {
		return
	}
	o.running = true
	c.workers.Go(func() {
		err := c.rec.undo(c.commands, c.steps, o.orphan.UID)
		c.do(func() {
			o.running = false
			if err == nil {
				o.stopTimer()
				delete(c.objects, o.name)
				return
			}
			if c.stopping() {
				return
			}
			o.failures++
			if o.last.failed = true; o.failures == 1 {
				c.o.Log.Warn("cannot unmount what a deleted ClientMount left", "clientmount", o.orphan.Name, "error", err, daemon.EventID(eventOrphan))
			}
			o.stopTimer()
			o.timer = time.AfterFunc(pause(o.failures, c.limits.Load().RetryMax, false), func() { c.do(func() { c.unmountOrphan(o) }) })
		})
	})
}

// alive reports whether an object exists or is still worked on. It is called by
// workers.
func (c *Controller) alive(uid, name string) bool {
	answer := make(chan bool, 1)
	c.do(func() {
		yes := !c.synced || c.malformed[name] || c.busyWith(uid)
		for _, o := range c.objects {
			yes = yes || o.newest != nil && string(o.newest.UID) == uid
		}
		answer <- yes
	})
	select {
	case yes := <-answer:
		return yes
	case <-c.loop.Done():
		return true
	}
}

// forgetOrphan is called when an object has taken an orphan over. An orphan that is
// being undone finds that in its record.
func (c *Controller) forgetOrphan(uid string) {
	c.do(func() {
		key := orphanPrefix + uid
		if o := c.objects[key]; o != nil && !o.running {
			o.stopTimer()
			delete(c.objects, key)
		}
	})
}

// undo unmounts everything that the record of a deleted object lists, last
// one first. Other objects may take over some of it meanwhile, so the file is
// read again in each mount's turn, and only that mount is changed in it. ctx and
// steps are those of a task.
func (r *reconciler) undo(ctx, steps context.Context, uid string) error {
	failpoint.At("orphan/begin")
	rec, err := r.records.Load(uid)
	if rec == nil {
		return err
	}
	t := &task{reconciler: r, uid: uid, ctx: ctx, steps: steps, log: r.log.With("clientmount", rec.Name, "workflow", rec.Workflow)}
	if err := t.waitLeftovers(rec); err != nil {
		return err
	}
	var first error
	for i := range slices.Backward(rec.Mounts) {
		if rec.Mounts[i].Unmounted {
			continue
		}
		first = keep(first, t.undoOne(&rec.Mounts[i].Plan))
		if errors.Is(first, errInterrupted) {
			return first
		}
	}
	return first
}

// undoOne unmounts what a deleted object has mounted by a plan.
func (t *task) undoOne(p *plan.Plan) error {
	done, err := t.registry.sequence(t.steps, p)
	if err != nil {
		return errInterrupted
	}
	defer done()
	path := p.Path
	rec, err := t.records.Load(t.uid)
	if err != nil {
		return err
	}
	m := rec.at(path)
	if m == nil || m.Unmounted {
		return nil // taken over, or the record is gone
	}
	save := func() error {
		_, err := t.records.update(t.uid, func(onDisk *Record) {
			if at := onDisk.at(path); at != nil {
				*at = *m
			}
		})
		return err
	}
	_, keeper, err := t.unmountInTurn(t.newRunner(&m.Plan, m, save))
	if err != nil {
		return err
	}
	failpoint.At("orphan/undone")
	m.Unmounted, m.Mounted, m.Mounting = true, nil, false
	if err := save(); err != nil {
		return err
	}
	if keeper == "" {
		t.log.Info("unmounted what a deleted ClientMount left", "mount_path", path, daemon.EventID(eventUnmounted))
	}
	return nil
}

func orphanPaths(r *Record) string {
	var paths []string
	for _, m := range r.Mounts {
		if !m.Unmounted {
			paths = append(paths, m.Plan.Path)
		}
	}
	return strings.Join(paths, " ")
}

// release ends what the record of a deleted ClientMount says about a path.
func (a *attempt) release(uid, path string) error {
	done, err := a.records.update(uid, func(r *Record) {
		if m := r.at(path); m != nil {
			m.Unmounted = true
		}
	})
	if err != nil {
		return err
	}
	a.registry.forget(uid, path)
	if done && a.released != nil {
		a.released(uid)
	}
	return nil
}
