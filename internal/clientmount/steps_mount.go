package clientmount

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/volume"
)

// holderTimes bound the search for who keeps a mount busy. With the first the
// answer is there within 200 ms. Only when it found nobody, on a node with
// thousands of processes or a full load, a second and longer search follows,
// because a late answer is worth more than none.
var holderTimes = []time.Duration{150 * time.Millisecond, 2 * time.Second}

// stackLimit bounds how many mounts of ours on top of each other are undone.
const stackLimit = 4

// mountStep puts the file system at its path unless it is there already.
func (r *runner) mountStep(ctx context.Context, name string, s *volume.Step) error {
	m, err := r.machine.MountAt(r.plan.Path)
	if err != nil {
		return err
	}
	if m != nil {
		mine, err := ours(r.machine, *m, r.plan, r.rec)
		if err != nil {
			return err
		}
		if !mine {
			return errForeign(*m, r.plan)
		}
		return r.note(m)
	}
	if err := r.makeTarget(name); err != nil {
		return fmt.Errorf("could not make the mount target: %w", err)
	}
	failpoint(name + "/target")
	if err := r.command(ctx, s.Argv); err != nil {
		return fmt.Errorf("could not mount file system %s: %w", r.plan.Path, err)
	}
	failpoint(name + "/mounted")
	if m, err = r.machine.MountAt(r.plan.Path); err != nil {
		return err
	}
	if m == nil {
		return fmt.Errorf("could not mount file system %s: the command %q reported success but nothing is mounted there", r.plan.Path, strings.Join(s.Argv, " "))
	}
	if mine, err := ours(r.machine, *m, r.plan, nil); err != nil || !mine {
		if err == nil {
			err = errForeign(*m, r.plan)
		}
		return err
	}
	return r.note(m)
}

// makeTarget makes the mount target. What will be made is in the record before
// it is, so that a crash in between leaves no directory that nobody removes.
func (r *runner) makeTarget(name string) error {
	had := r.rec.Created
	r.rec.Created = union(had, r.machine.MissingTargets(r.plan.Path))
	announced := r.rec.Created
	if len(announced) > len(had) {
		if err := r.save(); err != nil {
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
	r.rec.Mounted = id
	return r.save()
}

// unmountStep takes our mount away and then the target. A mount that we did
// not make is left alone; none at all is done already.
func (r *runner) unmountStep(ctx context.Context, name string, s *volume.Step) error {
	for range stackLimit {
		m, err := r.machine.MountAt(r.plan.Path)
		if err != nil {
			return err
		}
		if m == nil {
			break
		}
		mine, err := ours(r.machine, *m, r.plan, r.rec)
		if err != nil {
			return err
		}
		if !mine {
			return errForeign(*m, r.plan)
		}
		if err := r.command(ctx, s.Argv); err != nil {
			err = fmt.Errorf("could not unmount file system %s: %w", r.plan.Path, err)
			return r.explainBusy(ctx, *m, err)
		}
		failpoint(name + "/unmounted")
	}
	if m, err := r.machine.MountAt(r.plan.Path); err != nil {
		return err
	} else if m != nil {
		return fmt.Errorf("could not unmount file system %s: the command reported success but %s is still mounted there", r.plan.Path, m.Source)
	}
	r.rec.Mounted = nil
	left, err := r.machine.RemoveTarget(r.plan.Path, r.rec.Created)
	failpoint(name + "/removed")
	if err != nil || len(left) > 0 {
		r.log.Info("mount target left behind", "path", r.plan.Path, "left", left, "error", err, daemon.EventID(eventLeftover))
	}
	r.rec.Created = left
	return r.save()
}

// explainBusy adds who uses the mount when that is why umount refused. They are
// logged when they are others than the last time: a mount may be in use for hours.
func (r *runner) explainBusy(ctx context.Context, m node.Mount, err error) error {
	if !node.IsBusy(err) {
		return err
	}
	holders, herr := r.holders(ctx, m)
	if len(holders) == 0 {
		if herr == nil {
			return fmt.Errorf("%w; no process was found that uses it: look for nested mounts, exports, loop devices or swap", err)
		}
		return fmt.Errorf("%w; could not find out who uses it: %w", err, herr)
	}
	text := holderText(holders)
	if text == r.rec.holders {
		holders = nil
	}
	r.rec.holders = text
	for _, h := range holders {
		r.log.Warn("mount is in use", "step", "unmount", "holder_pid", h.PID, "holder_uid", h.UID, "holder_command", h.Command,
			"holder_kind", h.Kind, "holder_path", h.Path, daemon.EventID(eventBusy))
	}
	return fmt.Errorf("%w; in use by %s", err, text)
}

func (r *runner) holders(ctx context.Context, m node.Mount) (list []node.Holder, err error) {
	for _, limit := range holderTimes {
		look, cancel := context.WithTimeout(ctx, limit)
		list, err = r.machine.Holders(look, m, 16)
		late := look.Err() != nil
		cancel()
		if len(list) > 0 || !late || ctx.Err() != nil {
			break
		}
	}
	return list, err
}

func holderText(list []node.Holder) string {
	const most = 5
	var s []string
	for i, h := range list {
		if i == most {
			s = append(s, fmt.Sprintf("%d more", len(list)-most))
			break
		}
		s = append(s, fmt.Sprintf("pid %d (uid %d, %s) %s %s", h.PID, h.UID, h.Command, h.Kind, h.Path))
	}
	return strings.Join(s, "; ")
}

// chown sets the owner of the mounted root (or of the bound device node), and
// only after a look that it is ours.
func (r *runner) chown(s *volume.Step) error {
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
