package clientmount

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// errSuperseded ends a sequence between two steps because the object changed
// or the daemon stops; it is never reported as a failure.
var errSuperseded = errors.New("superseded by a newer state of the object")

// hookLogLimit bounds what is logged of a hook's output, in bytes.
const hookLogLimit = 8 << 10

// runner carries out one plan. It is used by one worker at a time.
type runner struct {
	machine Machine
	limits  Limits
	apart   Machine      // for what must not wait for a command of this object that hangs
	log     *slog.Logger // with the object's fields

	plan *plan.Plan
	rec  *MountRecord
	save func() error // writes the whole record to disk

	// waits ends when the object has a newer state or the daemon stops: waits
	// are cut short and no further step starts, but a command that runs
	// already goes on until its own limit.
	waits context.Context
	// ready means that the API server already knows this state as reached, so
	// hooks are not repeated (contract clientmountd.md 4.4).
	ready bool
	// shared: other ClientMounts use the same mount, so its target is known.
	shared bool
	// keepVolume: other mounts use the volume, so unmounting does not give it up.
	keepVolume bool

	phase    string        // "mount" or "unmount", for failpoints and logs
	commands time.Duration // spent in commands, for the overhead figure
}

// runnerOf makes the runner of a plan, without what it remembers.
func (r *reconciler) runnerOf(ctx context.Context, log *slog.Logger, uid string, p *plan.Plan) *runner {
	log = log.With("mount_path", p.Path)
	why := purpose{uid: uid, plans: []*plan.Plan{p}}
	run := &runner{machine: r.machineFor(ctx, log, why), limits: r.limits(), log: log, plan: p}
	why.apart = true
	run.apart = r.machineFor(ctx, log, why)
	return run
}

func (r *runner) stop() bool { return r.waits.Err() != nil }

// mount runs the mount sequence. The result is nil, errSuperseded or a
// *dws.ResourceError whose text starts with the contract's step text.
func (r *runner) mount(ctx context.Context) error {
	r.phase = "mount"
	steps := r.plan.Mount
	retries := 0
	for i := 0; i < len(steps); i++ {
		s := &steps[i]
		if r.stop() {
			return errSuperseded
		}
		if s.Hook && r.ready {
			continue
		}
		err := r.step(ctx, s)
		if err == nil {
			continue
		}
		if errors.Is(err, errSuperseded) {
			return err
		}
		if activation(s.Kind) && !hangs(err) {
			again, err := r.afterActivationFailure(ctx, err, &retries)
			if errors.Is(err, errSuperseded) {
				return err
			}
			if again {
				i = firstActivation(steps) - 1
				continue
			}
			return dws.WrapError(dws.Major, s.Fail, err)
		}
		return dws.WrapError(dws.Major, s.Fail, err)
	}
	return nil
}

// unmount runs the unmount sequence; results as for mount.
func (r *runner) unmount(ctx context.Context) error {
	r.phase = "unmount"
	steps := r.unmountSteps()
	for i := range steps {
		s := &steps[i]
		if r.stop() {
			return errSuperseded
		}
		if r.keepVolume && s.Releases() {
			continue
		}
		if err := r.step(ctx, s); err != nil {
			if errors.Is(err, errSuperseded) {
				return err
			}
			if (s.Kind == plan.Deactivate || s.Kind == plan.LockStop) && !errors.Is(err, node.ErrHangs) {
				r.diagnose(ctx)
			}
			return dws.WrapError(dws.Major, s.Fail, err)
		}
	}
	return nil
}

// unmountSteps is the plan's sequence. A profile that has lost its mount
// commands since does not keep what is mounted from being unmounted.
func (r *runner) unmountSteps() []plan.Step {
	steps := r.plan.Unmount
	isUnmount := func(s plan.Step) bool { return s.Kind == plan.Unmount || s.Kind == plan.Unlink }
	if r.rec.Mounted == nil && !r.rec.Mounting || slices.ContainsFunc(steps, isUnmount) {
		return steps
	}
	at := slices.IndexFunc(steps, func(s plan.Step) bool { return s.Releases() })
	if at < 0 {
		at = len(steps)
	}
	return slices.Insert(slices.Clone(steps), at, r.plan.BuiltinUnmount())
}

// step runs one step between its two boundaries and logs it.
func (r *runner) step(ctx context.Context, s *plan.Step) (err error) {
	name := fmt.Sprintf("%s/%d/%s", r.phase, r.plan.Index, s.Name)
	failpoint(name + "/before")
	log := r.log.With("step", s.Name)
	began := time.Now()
	switch s.Kind {
	case plan.Hook:
		err = r.hook(ctx, log, s)
	case plan.WaitVG:
		err = r.waitFor(func(ctx context.Context) error {
			return r.machine.WaitVG(ctx, r.plan.VG, r.limits.VGWait, r.limits.Command)
		})
	case plan.LockStart:
		err = r.locked(func() error { return r.command(ctx, s.Argv) })
	case plan.Activate:
		err = r.locked(func() error { return r.activate(ctx, s) })
	case plan.WaitDevice:
		err = r.waitFor(func(ctx context.Context) error {
			return r.machine.WaitDevice(ctx, r.plan.Device, r.limits.DeviceWait)
		})
	case plan.Mount:
		err = r.mountStep(ctx, name, s)
	case plan.Chown:
		began := time.Now()
		err = r.chown(s)
		r.commands += time.Since(began) // it is one, except on a file system in memory
	case plan.ServersFile:
		// Written by the reconciler after the mount, because it needs the API
		// server. A failure does not fail the mount.
	case plan.Unmount:
		err = r.unmountStep(ctx, name, s)
	case plan.Deactivate:
		// The search for holders does not need the lock.
		err = r.explainInUse(ctx, r.locked(func() error { return r.deactivate(ctx, s) }))
	case plan.LockStop:
		err = r.locked(func() error { return r.lockStop(ctx, s) })
	case plan.Link:
		err = r.link()
	case plan.Unlink:
		err = r.unlink()
	default:
		err = fmt.Errorf("step %s has the unknown kind %v", s.Name, s.Kind)
	}
	d := time.Since(began)
	if err == nil {
		log.Debug("step done", "duration", d, daemon.EventID(eventStep))
	} else if !errors.Is(err, errSuperseded) {
		log.Debug("step failed", "duration", d, "error", err, daemon.EventID(eventStep))
	}
	failpoint(name + "/after")
	return err
}

// command runs a built-in verb directly, without a shell.
func (r *runner) command(ctx context.Context, argv []string) error {
	began := time.Now()
	_, err := r.machine.Run(ctx, node.Command{Argv: argv, Timeout: r.limits.Command})
	r.commands += time.Since(began)
	return err
}

// hook runs one line of the administrator by bash and logs what it printed.
func (r *runner) hook(ctx context.Context, log *slog.Logger, s *plan.Step) error {
	began := time.Now()
	res, err := r.machine.Run(ctx, node.Command{Shell: s.Shell, Timeout: r.limits.Hook})
	d := time.Since(began)
	r.commands += d
	if out := strings.TrimSpace(res.Stdout + res.Stderr); out != "" && err == nil {
		log.Info("hook output", "phase", s.Name, "output", shorten(out, hookLogLimit), "duration", d, daemon.EventID(eventHook))
	}
	return err
}

// locked serialises LVM commands on one volume group.
func (r *runner) locked(f func() error) error {
	unlock, err := r.machine.LockVG(r.waits, r.plan.VG)
	if err != nil {
		if r.stop() {
			return errSuperseded
		}
		return err
	}
	defer unlock()
	return f()
}

// waitFor runs a wait that a newer state of the object may cut short.
func (r *runner) waitFor(f func(context.Context) error) error {
	began := time.Now()
	err := f(r.waits)
	r.commands += time.Since(began)
	if err != nil && r.stop() {
		return errSuperseded
	}
	return err
}
