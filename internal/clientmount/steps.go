package clientmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
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

// step runs one step between its two boundaries and logs it.
func (r *runner) step(ctx context.Context, s *plan.Step) (err error) {
	name := fmt.Sprintf("%s/%d/%s", r.phase, r.plan.Index, s.Name)
	failpoint.At(name + "/before")
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
	failpoint.At(name + "/after")
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

// Host is the node without the means to start programs. To start one takes a
// Machine, so that nothing goes around the check for commands that hang.
type Host interface {
	View
	WaitLeft(ctx context.Context, mark string, limit time.Duration, found func(node.Left)) ([]node.Left, error)
	// For returns the node for one purpose. Whatever the Machine starts is started by
	// the Runner that gate returns; next is what really starts it.
	For(c node.Caller, gate func(next node.Runner) node.Runner) Machine
}

// View is what can be seen of the node without a program.
type View interface {
	MountAt(path string) (*node.Mount, error)
	MountsOn(path string) ([]node.Mount, error)
	MountByID(id int) (*node.Mount, error)
	HiddenBy(m node.Mount) (*node.Mount, error)
	BlockDevice(path string) (node.Device, error)
	BoundDevice(m node.Mount) (node.Device, error)
	DMName(d node.Device) (string, error)
	Holders(ctx context.Context, m node.Mount, limit int) ([]node.Holder, error)
	DeviceHolders(ctx context.Context, d node.Device, limit int) ([]node.Holder, error)
	LookupHost(ctx context.Context, host string) (addresses []string, err error)
}

// Machine is what the steps of a plan need from the node; *node.Node is the
// real one.
type Machine interface {
	View
	Run(ctx context.Context, c node.Command) (node.Result, error)

	ResolveTarget(path string) (string, error)
	MissingTargets(path string) []string
	MakeDirectory(path string) (created []string, err error)
	MakeFile(path string) (created []string, err error)
	RemoveTarget(path string, created []string) (left []string, err error)
	ChownMount(m node.Mount, uid, gid uint32) error
	WriteFileIn(dir, name string, data []byte, uid, gid uint32) error

	LockVG(ctx context.Context, vg string) (unlock func(), err error)
	LVs(ctx context.Context, vg string, timeout time.Duration) ([]node.LV, error)
	HasVG(ctx context.Context, vg string, timeout time.Duration) (bool, error)
	WaitVG(ctx context.Context, vg string, limit, timeout time.Duration) error
	WaitDevice(ctx context.Context, path string, limit time.Duration) error

	Namespaces(ctx context.Context, timeout time.Duration) ([]node.Namespace, error)
	RescanNVMe(ctx context.Context, nqns []string, timeout time.Duration) error
	WaitNamespaces(ctx context.Context, want []node.Namespace, limit, timeout time.Duration) (missing []node.Namespace, err error)
}

// NewMachine is this node.
func NewMachine(log *slog.Logger) Host {
	return realHost{&node.Node{Log: log}}
}

type realHost struct{ *node.Node }

func (h realHost) For(c node.Caller, gate func(node.Runner) node.Runner) Machine {
	c.Exec = gate(h.Node)
	return h.Node.For(c)
}

// Limits are the times and counts that an administrator may change while the
// daemon runs. Durations of 0 mean no limit.
type Limits struct {
	Command       time.Duration // one built-in command
	Hook          time.Duration // one hook of the storage profile
	VGWait        time.Duration // a volume group to appear
	DeviceWait    time.Duration // a device node or NVMe namespace to appear
	DeviceRetries int           // activations after a rescan before the failure is reported
	RetryMax      time.Duration // ceiling of the pause between attempts
	Verify        time.Duration // between two checks of a ready mount, 0: never
}

// link is the mount of mode "kind": a symbolic link to the directory that
// stands for the rabbit's storage (contract clientmountd.md 7.4). It is for
// test clusters, where the daemon runs in a container.
func (r *runner) link() error {
	target, path := r.plan.LinkTo, r.plan.Path
	have, err := os.Readlink(path)
	switch {
	case err == nil && have == target:
		return nil
	case err == nil:
		return fmt.Errorf("%s links to %s, expected %s", path, have, target)
	case !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s is in the way: %w", path, err)
	}
	if _, err := r.machine.MakeDirectory(filepath.Dir(path)); err != nil {
		return err
	}
	return os.Symlink(target, path)
}

// unlink removes exactly that link.
func (r *runner) unlink() error {
	have, err := os.Readlink(r.plan.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case have != r.plan.LinkTo:
		return fmt.Errorf("%s links to %s, expected %s; left alone", r.plan.Path, have, r.plan.LinkTo)
	}
	return os.Remove(r.plan.Path)
}

// holderTimes bound the search for what keeps a mount or a device busy. With the first the
// answer is there within 200 ms. Only when it found nobody, on a node with
// thousands of processes or a full load, a second and longer search follows,
// because a late answer is worth more than none.
var holderTimes = []time.Duration{150 * time.Millisecond, 2 * time.Second}

// explainBusy adds who uses the mount when that is why umount refused.
func (r *runner) explainBusy(ctx context.Context, m node.Mount, err error) error {
	if !node.IsBusy(err) {
		return err
	}
	return r.explain(ctx, err, "mount is in use", "unmount", "nested mounts, exports, loop devices or swap",
		func(ctx context.Context, limit int) ([]node.Holder, error) { return r.machine.Holders(ctx, m, limit) })
}

// explainInUse adds who uses the volume's device when that is why it was not deactivated.
func (r *runner) explainInUse(ctx context.Context, err error) error {
	if err == nil || !node.IsInUse(err) {
		return err
	}
	d, derr := r.machine.BlockDevice(r.plan.Device)
	if derr != nil {
		return fmt.Errorf("%w; could not find out who uses it: %w", err, derr)
	}
	return r.explain(ctx, err, "device is in use", "deactivate", "exports, overlays and mount namespaces without processes",
		func(ctx context.Context, limit int) ([]node.Holder, error) {
			return r.machine.DeviceHolders(ctx, d, limit)
		})
}

// explain adds to err who the search finds. They are logged with msg when they are others
// than the last time: a mount may be in use for hours. When no holder is found the text
// names where else to look.
func (r *runner) explain(ctx context.Context, err error, msg, step, elsewhere string, search holderSearch) error {
	const inText, inLog = 5, 16
	holders, herr := findHolders(ctx, inLog, search)
	if len(holders) == 0 {
		if herr == nil {
			return fmt.Errorf("%w; no process was found that uses it: look for %s", err, elsewhere)
		}
		return fmt.Errorf("%w; could not find out who uses it: %w", err, herr)
	}
	text := node.HolderText(holders, inText)
	if text == r.rec.holders {
		holders = nil
	}
	r.rec.holders = text
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
