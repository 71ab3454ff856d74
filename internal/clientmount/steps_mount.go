package clientmount

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// holderTimes bound the search for what keeps a mount or a device busy. With the first the
// answer is there within 200 ms. Only when it found nobody, on a node with
// thousands of processes or a full load, a second and longer search follows,
// because a late answer is worth more than none.
var holderTimes = []time.Duration{150 * time.Millisecond, 2 * time.Second}

// stackLimit bounds how many mounts of ours on top of each other are undone.
const stackLimit = 4

// mountStep puts the file system at its path unless it is there already. What
// our own command makes appear there is ours, whatever the kernel shows as its
// source.
func (r *runner) mountStep(ctx context.Context, name string, s *plan.Step) error {
	m, err := r.machine.MountAt(r.plan.Path)
	if err != nil {
		return err
	}
	if m != nil {
		mine, err := ours(r.machine, *m, r.plan, r.rec)
		if err == nil && !mine && r.plan.Type == dws.TypeLustre {
			mine, err = made(r.machine, *m, r.plan, r.rec)
		}
		if err != nil {
			return err
		}
		if !mine {
			return errForeign(*m, r.plan)
		}
		r.adoptTarget()
		return r.note(m)
	}
	if err := r.makeTarget(name); err != nil {
		return fmt.Errorf("could not make the mount target: %w", err)
	}
	failpoint(name + "/target")
	failed := r.command(ctx, s.Argv)
	failpoint(name + "/mounted")
	if m, err = r.machine.MountAt(r.plan.Path); err != nil {
		return keep(failed, err)
	}
	if m == nil {
		if failed == nil {
			failed = fmt.Errorf("the command %q reported success but nothing is mounted there", strings.Join(s.Argv, " "))
		}
		return fmt.Errorf("could not mount file system %s: %w", r.plan.Path, failed)
	}
	// A command that was ended by its time limit may have mounted all the same.
	if err := r.note(m); err != nil || failed != nil {
		return fmt.Errorf("could not mount file system %s: %w", r.plan.Path, keep(failed, err))
	}
	if r.plan.Type == dws.TypeLustre {
		if m.FSType != fstype("lustre") {
			return errForeign(*m, r.plan)
		}
		return nil
	}
	if mine, err := ours(r.machine, *m, r.plan, nil); err != nil || !mine {
		if err == nil {
			err = errForeign(*m, r.plan)
		}
		return err
	}
	return nil
}

// adoptTarget takes over the target of a mount of our volume that is in place
// without a record: it is removed with the mount.
func (r *runner) adoptTarget() {
	if r.rec.Mounted == nil && !r.rec.Mounting && !r.shared {
		r.rec.Created = union(r.rec.Created, []string{r.plan.Path})
	}
}

// makeTarget makes the mount target. What will be made, and that the mount
// comes next, is in the record before it happens, so that a crash in between
// leaves neither a directory nor a mount without a record.
func (r *runner) makeTarget(name string) error {
	had := r.rec.Created
	r.rec.Created = union(had, r.machine.MissingTargets(r.plan.Path))
	announced := r.rec.Created
	if len(announced) > len(had) || !r.rec.Mounting {
		r.rec.Mounting = true
		if err := r.save(); err != nil {
			r.rec.Mounting = false
			return err
		}
	}
	create := r.machine.MakeDirectory
	if r.plan.Target == "file" {
		create = r.machine.MakeFile
	}
	created, err := create(r.plan.Path)
	failpoint(name + "/made")
	// Others may have made or removed some of it meanwhile.
	if r.rec.Created = union(had, created); !slices.Equal(r.rec.Created, announced) {
		err = keep(err, r.save())
	}
	return err
}

// union is a with those of b that it lacks.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// note keeps the identity of our mount in the record.
func (r *runner) note(m *node.Mount) error {
	id := identityOf(*m)
	if r.rec.Mounted != nil && *r.rec.Mounted == *id {
		return nil
	}
	r.rec.Mounted, r.rec.Mounting = id, false
	return r.save()
}

// unmountStep takes our mount away and then the target. It acts on the mount
// that the record identifies, wherever it stands in the mount table, and is
// done when the table shows none of ours at the path. Other mounts are left
// alone.
func (r *runner) unmountStep(ctx context.Context, name string, s *plan.Step) error {
	for range stackLimit {
		m, err := r.mine()
		if err != nil {
			return err
		}
		if m == nil {
			break
		}
		if err := r.command(ctx, s.Argv); err != nil {
			err = fmt.Errorf("could not unmount file system %s: %w", r.plan.Path, err)
			return r.explainBusy(ctx, *m, err)
		}
		failpoint(name + "/unmounted")
		table, err := r.machine.MountsOn(r.plan.Path)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(table, identityOf(*m).is) {
			return fmt.Errorf("could not unmount file system %s: the command %q reported success but %s is still mounted there",
				r.plan.Path, strings.Join(s.Argv, " "), m.Source)
		}
	}
	if m, err := r.mine(); err != nil {
		return err
	} else if m != nil {
		return fmt.Errorf("could not unmount file system %s: after %d unmounts %s is still mounted there", r.plan.Path, stackLimit, m.Source)
	}
	r.rec.Mounted, r.rec.Mounting = nil, false
	if m, err := r.machine.MountAt(r.plan.Path); err != nil {
		return err
	} else if m != nil {
		r.log.Warn("another mount is at the path of an unmounted ClientMount; it is left alone", "path", r.plan.Path, "device", m.Source, "type", m.FSType, daemon.EventID(eventLeftover))
		return nil
	}
	if len(r.rec.Created) > 0 {
		left, err := r.machine.RemoveTarget(r.plan.Path, r.rec.Created)
		failpoint(name + "/removed")
		switch {
		case err != nil:
			r.log.Info("mount target left behind", "path", r.plan.Path, "left", left, "error", err, daemon.EventID(eventLeftover))
		case len(left) > 0: // for example another mount of ours is in the same directory
			r.log.Debug("directories made for a mount target are still in use", "path", r.plan.Path, "left", left, daemon.EventID(eventLeftover))
		}
		r.rec.Created = left
	}
	// Undoing needs no record that can be written: a daemon that finds the old
	// one does the same again, without harm. The caller reports the failure.
	_ = r.save()
	return nil
}

// mine returns our mount at the plan's path, the visible one first, or nil.
// One that another mount hides is an error, because no command
// can reach it.
func (r *runner) mine() (*node.Mount, error) {
	table, err := r.machine.MountsOn(r.plan.Path)
	if err != nil {
		return nil, err
	}
	var hidden error
	for _, m := range slices.Backward(table) {
		mine, err := made(r.machine, m, r.plan, r.rec)
		if err != nil {
			return nil, err
		}
		if !mine {
			continue
		}
		by, err := r.machine.HiddenBy(m)
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone in this moment
		case err != nil:
			return nil, err
		case by == nil:
			return &m, nil
		default:
			hidden = keep(hidden, errHidden(m, by))
		}
	}
	return nil, hidden
}

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

// chown sets the owner of the mounted root (or of the bound device node), and
// only after a look that it is ours.
func (r *runner) chown(s *plan.Step) error {
	m, err := r.machine.MountAt(r.plan.Path)
	if err != nil {
		return err
	}
	if m == nil {
		// The profile has no mount command; there is nothing of ours to own.
		return nil
	}
	if mine, err := ours(r.machine, *m, r.plan, r.rec); err != nil || !mine {
		if err == nil {
			err = errForeign(*m, r.plan)
		}
		return err
	}
	return r.machine.ChownMount(*m, s.UID, s.GID)
}
