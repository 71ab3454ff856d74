package clientmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Host is the node. Programs for a ClientMount are started through a Machine, which
// starts none while an earlier one hangs.
type Host interface {
	node.Runner
	// For returns the node on behalf of c: c.Exec runs all programs.
	For(c node.Caller) Machine
	WaitLeftovers(ctx context.Context, mark string, limit time.Duration, found func(node.Leftover)) ([]node.Leftover, error)
}

// newHost returns this node.
func newHost(log *slog.Logger) Host {
	return realHost{&node.Node{Log: log}}
}

type realHost struct{ *node.Node }

func (h realHost) For(c node.Caller) Machine { return h.Node.For(c) }

// Machine is what the steps of a plan need from the node. *node.Node implements it.
type Machine interface {
	MountTable
	Processes
	Devices
	Targets
	VolumeGroups
	NVMe
	node.Runner
}

// MountTable shows mounts, their devices or servers, and what keeps them busy.
type MountTable interface {
	MountAt(path string) (*node.Mount, error)
	MountsOn(path string) ([]node.Mount, error)
	HiddenBy(m node.Mount) (*node.Mount, error)
	BoundDevice(m node.Mount) (node.Device, error)
	Holders(ctx context.Context, m node.Mount, limit int) ([]node.Holder, error)
	LookupHost(ctx context.Context, host string) (addresses []string, err error)
}

// Processes are the processes that prevent an unmount.
type Processes interface {
	Users(ctx context.Context, m node.Mount, limit int) ([]node.Holder, error)
	SignalUser(ctx context.Context, m node.Mount, h node.Holder, sig unix.Signal, rule node.SignalRule) (node.Holder, error)
	WaitExit(ctx context.Context, list []node.Process, limit time.Duration) (running []node.Process)
	MinUID() (uint32, error)
}

// Devices are the block devices of the node.
type Devices interface {
	BlockDevice(path string) (node.Device, error)
	DMName(d node.Device) (string, error)
	DeviceHolders(ctx context.Context, d node.Device, limit int) ([]node.Holder, error)
	WaitDevice(ctx context.Context, path string, limit time.Duration) error
}

// Targets are the directories and files that file systems are mounted on.
type Targets interface {
	ResolveTarget(path string) (string, error)
	MissingTargets(path string) []string
	MakeDirectory(path string) (created []string, err error)
	MakeFile(path string) (created []string, err error)
	RemoveTarget(path string, created []string) (left []string, err error)
	ChownMount(m node.Mount, uid, gid uint32) error
	WriteFileIn(dir, name string, data []byte, uid, gid uint32) error
}

// VolumeGroups are the volume groups of LVM.
type VolumeGroups interface {
	LockVG(ctx context.Context, vg string) (unlock func(), err error)
	LVs(ctx context.Context, vg string, timeout time.Duration) ([]node.LV, error)
	HasVG(ctx context.Context, vg string, timeout time.Duration) (bool, error)
	WaitVG(ctx context.Context, vg string, limit, timeout time.Duration) error
}

// NVMe is the NVMe namespaces of the node.
type NVMe interface {
	Namespaces(ctx context.Context, timeout time.Duration) ([]node.Namespace, error)
	RescanNVMe(ctx context.Context, nqns []string, timeout time.Duration) error
	WaitNamespaces(ctx context.Context, want []node.Namespace, limit, timeout time.Duration) (missing []node.Namespace, err error)
}

// Limits are the time limits, counts and policies that a reload can change. A duration of 0
// means no limit.
type Limits struct {
	Command       time.Duration // one built-in command
	Hook          time.Duration // one hook of the storage profile
	VGWait        time.Duration // until a volume group appears
	DeviceWait    time.Duration // until a device node or NVMe namespace appears
	DeviceRetries int           // rescans and new activations before the failure is reported
	RetryMax      time.Duration // longest pause between attempts
	Verify        time.Duration // between two checks of a ready mount; 0: never
	Busy          Busy          // what happens to processes that keep a mount busy
}

// hookLogLimit bounds the logged output of a hook, in bytes.
const hookLogLimit = 8 << 10

// runner carries out one plan. Only one worker uses it at a time.
type runner struct {
	machine     Machine
	independent Machine // for commands that must not wait for a hanging command of this object
	limits      Limits
	log         *slog.Logger // with the object's fields
	ctx         context.Context
	// steps is done when the object has changed or the daemon stops: waits return early
	// and no further step starts, but a running command continues until its own limit.
	steps context.Context

	uid  string // of the object
	plan *plan.Plan
	rec  *MountRecord
	save func() error // writes the whole record to disk
	// noteStep adds a step to the timeline.
	noteStep func(path, kind, name string, started time.Time, err error)
	busy     *busyTable

	// ready means that the status already reports this state as reached, so hooks are
	// not repeated.
	ready bool
	// shared means that other ClientMounts use the same mount, so its target is recorded.
	shared bool
	// keepVolume means that other mounts use the volume, so unmounting does not release it.
	keepVolume bool

	metrics  *metrics      // nil: off
	phase    string        // "mount" or "unmount", for failpoints and logs
	commands time.Duration // spent in commands, for the overhead figure
}

// newRunner returns the runner of a plan. save writes the record that contains rec, noteStep adds a
// step to its timeline.
func (t *task) newRunner(p *plan.Plan, rec *MountRecord, save func() error, noteStep func(path, kind, name string, started time.Time, err error)) *runner {
	log := t.log.With("mount_path", p.Path)
	why := purpose{uid: t.uid, plans: []*plan.Plan{p}}
	r := &runner{
		machine: t.machineFor(t.ctx, log, why), limits: t.limits(), log: log, ctx: t.ctx, steps: t.steps, plan: p, rec: rec, save: save, noteStep: noteStep, metrics: t.metrics,
		uid: t.uid, busy: t.busy,
	}
	why.independent = true
	r.independent = t.machineFor(t.ctx, log, why)
	return r
}

func (r *runner) interrupted() bool { return r.steps.Err() != nil }

// step runs one step between its two boundaries and logs it.
func (r *runner) step(s *plan.Step) (err error) {
	name := fmt.Sprintf("%s/%d/%s", r.phase, r.plan.Index, s.Name)
	failpoint.At(name + "/before")
	log := r.log.With("step", s.Name)
	began := time.Now()
	switch s.Kind {
	case plan.Hook:
		err = r.hook(log, s)
	case plan.WaitVG:
		err = r.waitFor(func(ctx context.Context) error {
			return r.machine.WaitVG(ctx, r.plan.VG, r.limits.VGWait, r.limits.Command)
		})
	case plan.LockStart:
		err = r.locked(func() error { return r.command(s.Argv) })
	case plan.Activate:
		err = r.locked(func() error { return r.activate(s) })
	case plan.WaitDevice:
		err = r.waitFor(func(ctx context.Context) error {
			return r.machine.WaitDevice(ctx, r.plan.Device, r.limits.DeviceWait)
		})
	case plan.Mount:
		err = r.mountStep(name, s)
	case plan.Chown:
		err = r.chown(s)
	case plan.ServersFile:
		// Written by the reconciler after the mount, because it needs the API
		// server. A failure does not fail the mount.
	case plan.Unmount:
		err = r.unmountStep(name, s)
	case plan.Deactivate:
		// The search for holders does not need the lock.
		err = r.explainInUse(r.locked(func() error { return r.deactivate(s) }))
	case plan.LockStop:
		err = r.locked(func() error { return r.lockStop(s) })
	case plan.Link:
		err = r.link()
	case plan.Unlink:
		err = r.unlink()
	default:
		err = fmt.Errorf("step %s has unknown kind %v", s.Name, s.Kind)
	}
	d := time.Since(began)
	if i := stepIndex(s.Kind); i >= 0 {
		r.noteStep(r.plan.Path, stepKinds[i].timeline, s.Name, began, err)
	}
	if !r.ready || err != nil { // otherwise it has only checked a finished mount
		r.metrics.step(s.Kind, d, err)
	}
	if err == nil {
		log.Debug("step done", "duration", d, daemon.EventID(eventStep))
	} else if !errors.Is(err, errInterrupted) {
		log.Debug("step failed", "duration", d, "error", err, daemon.EventID(eventStep))
	}
	failpoint.At(name + "/after")
	return err
}

// command runs a built-in verb directly, without a shell.
func (r *runner) command(argv []string) error {
	defer r.spent(time.Now())
	_, err := r.machine.Run(r.ctx, node.Command{Argv: argv, Timeout: r.limits.Command})
	return err
}

// spent adds the time since a start to the time spent in commands.
func (r *runner) spent(began time.Time) { r.commands += time.Since(began) }

// hook runs one hook command of the profile with bash and logs its output.
func (r *runner) hook(log *slog.Logger, s *plan.Step) error {
	began := time.Now()
	res, err := r.machine.Run(r.ctx, node.Command{Shell: s.Shell, Timeout: r.limits.Hook})
	d := time.Since(began)
	r.commands += d
	if out := strings.TrimSpace(res.Stdout + res.Stderr); out != "" && err == nil {
		log.Info("hook output", "phase", s.Name, "output", text.Shorten(out, hookLogLimit), "duration", d, daemon.EventID(eventHook))
	}
	return err
}

// locked serialises LVM commands on one volume group.
func (r *runner) locked(f func() error) error {
	unlock, err := r.machine.LockVG(r.steps, r.plan.VG)
	if err != nil {
		if r.interrupted() {
			return errInterrupted
		}
		return err
	}
	defer unlock()
	return f()
}

// waitFor runs a wait that a change of the object interrupts.
func (r *runner) waitFor(f func(context.Context) error) error {
	defer r.spent(time.Now())
	err := f(r.steps)
	if err != nil && r.interrupted() {
		return errInterrupted
	}
	return err
}

// link replaces the mount in mode "kind": it creates a symbolic link to the directory
// that replaces the rabbit's storage. It is for test clusters, where the daemon runs in
// a container.
func (r *runner) link() error {
	target, path := r.plan.LinkTo, r.plan.Path
	have, err := os.Readlink(path)
	switch {
	case err == nil && have == target:
		return nil
	case err == nil:
		return fmt.Errorf("%s links to %s, expected %s", path, have, target)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("cannot create the symbolic link %s: %w", path, err)
	}
	if _, err := r.machine.MakeDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// unlink removes that link, and nothing else.
func (r *runner) unlink() error {
	have, err := os.Readlink(r.plan.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case have != r.plan.LinkTo:
		return fmt.Errorf("%s links to %s, expected %s; not removed", r.plan.Path, have, r.plan.LinkTo)
	}
	return os.Remove(r.plan.Path)
}

// holderTimes are the time limits of the searches for what keeps a mount or a device
// busy. The second, longer search runs only if the first one ran out of time without
// finding a holder, on a node with thousands of processes or a high load.
var holderTimes = []time.Duration{150 * time.Millisecond, 2 * time.Second}

// explainBusy adds the holders of the mount to err if umount failed because of them.
func (r *runner) explainBusy(m node.Mount, err error) error {
	if !node.IsBusy(err) {
		return err
	}
	return r.explain(err, "mount is in use", "unmount", "nested mounts, exports, loop devices or swap",
		func(ctx context.Context, limit int) ([]node.Holder, error) { return r.machine.Holders(ctx, m, limit) })
}

// explainInUse adds the holders of the volume's device to err if the deactivation failed
// because of them.
func (r *runner) explainInUse(err error) error {
	if err == nil || !node.IsInUse(err) {
		return err
	}
	d, derr := r.machine.BlockDevice(r.plan.Device)
	if derr != nil {
		return fmt.Errorf("%w; could not determine what uses it: %w", err, derr)
	}
	return r.explain(err, "device is in use", "deactivate", "exports, overlays and mount namespaces without processes",
		func(ctx context.Context, limit int) ([]node.Holder, error) {
			return r.machine.DeviceHolders(ctx, d, limit)
		})
}

// explain adds the holders that the search finds to err. It logs them with msg if they
// differ from the last ones, because a mount may be in use for hours. If no holder is
// found, the text lists what else to check.
func (r *runner) explain(err error, msg, step, elsewhere string, search holderSearch) error {
	const inText, inLog = 5, 16
	holders, herr := findHolders(r.ctx, inLog, search)
	if len(holders) == 0 {
		if herr == nil {
			return fmt.Errorf("%w; no process was found that uses it; check for %s", err, elsewhere)
		}
		return fmt.Errorf("%w; could not determine what uses it: %w", err, herr)
	}
	text := node.HolderText(holders, inText)
	logged := r.rec.Holders
	if r.rec.Holders = holdersOf(holders); slices.Equal(r.rec.Holders, logged) {
		holders = nil
	}
	for _, h := range holders {
		r.log.Warn(msg, "step", step, "holder", h.String(), "holder_pid", h.PID, "holder_uid", h.UID, "holder_command", h.Command,
			"holder_kind", h.Kind, "holder_path", h.Path, "holder_unit", h.Unit, "holder_namespace", h.Namespace, daemon.EventID(eventBusy))
	}
	return fmt.Errorf("%w; in use by %s", err, text)
}

type holderSearch func(ctx context.Context, limit int) ([]node.Holder, error)

func findHolders(ctx context.Context, most int, search holderSearch) (list []node.Holder, err error) {
	for _, limit := range holderTimes {
		look, cancel := context.WithTimeout(ctx, limit)
		list, err = search(look, most)
		late := look.Err() != nil
		cancel()
		if len(list) > 0 || !late || ctx.Err() != nil {
			break
		}
	}
	return list, err
}
