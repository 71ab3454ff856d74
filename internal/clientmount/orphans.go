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
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
)

// OrphanPolicy selects what happens to our mounts whose ClientMount no longer exists.
type OrphanPolicy string

// The policies. The default is to report, because a job may still use the data.
const (
	OrphansReport  OrphanPolicy = "report"
	OrphansUnmount OrphanPolicy = "unmount"
)

// orphanPrefix distinguishes the names of orphans from those of objects, which cannot
// contain a blank.
const orphanPrefix = "orphan "

// findOrphans looks for records that belong to no object. It is called after a complete
// list and after the deletion of an object.
func (c *Controller) findOrphans() {
	if c.stopping() {
		return
	}
	records, err := c.o.Records.List()
	if err != nil {
		c.o.Log.Error("cannot read some mount records", "error", err, daemon.EventID(eventRecord))
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
			_ = c.o.Records.End(r)
			continue
		}
		if r.Orphan == nil {
			now := time.Now()
			if _, err := c.o.Records.update(r.UID, func(r *Record) { r.Orphan = &now }); err != nil {
				c.o.Log.Debug("cannot save the state for reports", "error", err, daemon.EventID(eventRecord))
			}
		}
		o := &object{name: key, orphan: r}
		c.objects[key] = o
		paths := orphanPaths(r)
		if c.o.Orphans != OrphansUnmount {
			c.o.Log.Warn("found mounts of a ClientMount that no longer exists", "clientmount", r.Name, "workflow", r.Workflow, "paths", paths,
				"hint", "unmount them when the job has finished, or set mount.orphans = \"unmount\"", daemon.EventID(eventOrphan))
			continue
		}
		c.unmountOrphan(o)
	}
}

// busyWith reports whether an attempt for the object with this uid is running.
func (c *Controller) busyWith(uid string) bool {
	for _, o := range c.objects {
		if o.running && o.work != nil && o.work.uid == uid {
			return true
		}
	}
	return false
}

// unmountOrphan unmounts an orphan in a separate worker, and retries after a failure.
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
				c.o.Log.Warn("cannot unmount file systems of a deleted ClientMount", "clientmount", o.orphan.Name, "error", err, daemon.EventID(eventOrphan))
			}
			o.stopTimer()
			d := c.rec.busy.pause(o.orphan.UID, pause(o.failures, c.limits.Load().RetryMax, false))
			o.timer = time.AfterFunc(d, func() { c.do(func() { c.unmountOrphan(o) }) })
		})
	})
}

// alive reports whether an object exists or an attempt for it is running. Workers call it.
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

// forgetOrphan removes an orphan whose mounts another object has taken over. An orphan
// whose unmount is running finds this in its record.
func (c *Controller) forgetOrphan(uid string) {
	c.do(func() {
		key := orphanPrefix + uid
		if o := c.objects[key]; o != nil && !o.running {
			o.stopTimer()
			delete(c.objects, key)
		}
	})
}

// undo unmounts everything in the record of a deleted object, in reverse order. Other
// objects may take over mounts concurrently, so undoOne reads the file again for each
// mount and changes only that mount. ctx and steps are those of a task.
func (r *reconciler) undo(ctx, steps context.Context, uid string) error {
	failpoint.At("orphan/start")
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

// undoOne unmounts the mount of a deleted object that the plan describes.
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
			onDisk.stepLog = rec.stepLog
		})
		return err
	}
	note := func(path, kind, name string, started time.Time, err error) {
		rec.add(path, mountstate.PhaseUnmount, kind, name, started, err)
	}
	_, keeper, err := t.unmountInTurn(t.newRunner(&m.Plan, m, save, note))
	if err != nil {
		if m.Failure != nil {
			_ = save() // for reports only
		}
		return err
	}
	failpoint.At("orphan/undone")
	m.Unmounted, m.Mounted, m.Mounting, m.Since, m.Failure, m.Holders = true, nil, false, time.Now(), nil, nil
	if err := save(); err != nil {
		return err
	}
	if keeper == "" {
		t.log.Info("unmounted file system of a deleted ClientMount", "mount_path", path, daemon.EventID(eventUnmounted))
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

// release marks the mount at a path as unmounted in the record of a deleted ClientMount,
// and drops its claim.
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
