package clientmount

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/failpoint"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// stackLimit bounds how many of our mounts at one path, stacked on each other, are
// unmounted.
const stackLimit = 4

// mountStep mounts the file system unless it is mounted already. A mount that appears
// because of our own command is ours, whatever source the kernel shows.
func (r *runner) mountStep(name string, s *plan.Step) error {
	r.busy.forget(r.uid, r.plan.Path)
	m, err := r.machine.MountAt(r.plan.Path)
	if err != nil {
		return err
	}
	if m != nil && m.Removed() && r.rec.Mounted.is(*m) {
		if m, err = r.unmountRemoved(*m); err != nil {
			return err
		}
	}
	if m == nil { // ours may be there, but hidden
		if m, err = r.ownMount(); err != nil {
			return err
		}
	}
	if m != nil && !failpoint.Bug("mount-again") {
		mine, err := matchesVolume(r.machine, *m, r.plan, r.rec)
		if err == nil && !mine && r.plan.Type == dws.TypeLustre {
			mine, err = mustUnmount(r.machine, *m, r.plan, r.rec)
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
		return fmt.Errorf("could not create the mount target: %w", err)
	}
	failpoint.At(name + "/target")
	failed := r.command(s.Argv)
	failpoint.At(name + "/mounted")
	if m, err = r.machine.MountAt(r.plan.Path); err != nil {
		return keep(failed, err)
	}
	if m == nil {
		if failed == nil {
			failed = fmt.Errorf("the command %q reported success but nothing is mounted there", strings.Join(s.Argv, " "))
		}
		return fmt.Errorf("could not mount file system %s: %w", r.plan.Path, failed)
	}
	// A command that was killed at its time limit may still have mounted.
	if err := r.note(m); err != nil || failed != nil {
		return fmt.Errorf("could not mount file system %s: %w", r.plan.Path, keep(failed, err))
	}
	if r.plan.Type == dws.TypeLustre {
		if m.FSType != failpoint.FSType(dws.TypeLustre) {
			return errForeign(*m, r.plan)
		}
		return nil
	}
	if mine, err := matchesVolume(r.machine, *m, r.plan, nil); err != nil || !mine {
		if err == nil {
			err = errForeign(*m, r.plan)
		}
		return err
	}
	return nil
}

// unmountRemoved unmounts our bind mount of a device node that was removed because another process has
// deactivated the volume. The mount gives access to nothing, or to a later device that gets the same
// number. It returns what is visible at the path then.
func (r *runner) unmountRemoved(m node.Mount) (*node.Mount, error) {
	i := slices.IndexFunc(r.plan.Unmount, func(s plan.Step) bool { return s.Kind == plan.Unmount })
	if i < 0 {
		return nil, fmt.Errorf("the device of the mount at %s was removed, and the storage profile has no command to unmount it: unmount it", r.plan.Path)
	}
	r.log.Warn("the device of a mount was removed; mounting it again", "mount_path", r.plan.Path, "device", m.OriginalRoot(), daemon.EventID(eventLeftover))
	if err := r.umount(m, r.plan.Unmount[i].Argv); err != nil {
		return nil, err
	}
	return r.machine.MountAt(r.plan.Path)
}

// adoptTarget records the target of a mount of our volume that has no record, so that
// the target is removed with the mount.
func (r *runner) adoptTarget() {
	if r.rec.Mounted == nil && !r.rec.Mounting && !r.shared {
		r.rec.Created = union(r.rec.Created, []string{r.plan.Path})
	}
}

// makeTarget creates the mount target. It first saves in the record what it will create
// and that the mount follows, so that a crash leaves neither a directory nor a mount
// without a record.
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
	if r.plan.Target == plan.TargetFile {
		create = r.machine.MakeFile
	}
	created, err := create(r.plan.Path)
	failpoint.At(name + "/made")
	// Another process may have created or removed some of it concurrently.
	if r.rec.Created = union(had, created); !slices.Equal(r.rec.Created, announced) {
		err = keep(err, r.save())
	}
	return err
}

// union returns a with the elements of b that are not in a.
func union(a, b []string) []string {
	out := slices.Clone(a)
	for _, s := range b {
		if !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// note saves the identity of our mount in the record.
func (r *runner) note(m *node.Mount) error {
	id := identityOf(*m)
	if r.rec.Mounted != nil && *r.rec.Mounted == *id {
		return nil
	}
	r.rec.Mounted, r.rec.Mounting = id, false
	return r.save()
}

// unmountStep unmounts our mount and removes the target. It looks for the recorded mount
// in the mount table and is done when the table shows none of our mounts at the path.
// It does not touch other mounts.
func (r *runner) unmountStep(name string, s *plan.Step) error {
	for range stackLimit {
		m, err := r.ownMount()
		if err != nil {
			return err
		}
		if m == nil {
			break
		}
		if err := r.umount(*m, s.Argv); err != nil {
			return err
		}
		failpoint.At(name + "/unmounted")
		table, err := r.machine.MountsOn(r.plan.Path)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(table, identityOf(*m).is) {
			return fmt.Errorf("could not unmount file system %s: the command %q reported success but %s is still mounted there",
				r.plan.Path, strings.Join(s.Argv, " "), m.Source)
		}
	}
	if m, err := r.ownMount(); err != nil {
		return err
	} else if m != nil {
		return fmt.Errorf("could not unmount file system %s: after %d unmounts %s is still mounted there", r.plan.Path, stackLimit, m.Source)
	}
	r.rec.Mounted, r.rec.Mounting = nil, false
	r.busy.forget(r.uid, r.plan.Path)
	if m, err := r.machine.MountAt(r.plan.Path); err != nil {
		return err
	} else if m != nil {
		r.log.Warn("another file system is mounted at the path of an unmounted ClientMount; leaving it mounted", "path", r.plan.Path, "device", m.Source, "type", m.FSType, daemon.EventID(eventLeftover))
		return nil
	}
	if len(r.rec.Created) > 0 {
		left, err := r.machine.RemoveTarget(r.plan.Path, r.rec.Created)
		failpoint.At(name + "/removed")
		switch {
		case err != nil:
			r.log.Info("mount target left behind", "path", r.plan.Path, "left", left, "error", err, daemon.EventID(eventLeftover))
		case len(left) > 0: // for example, another of our mounts is in the same directory
			r.log.Debug("directories created for a mount target are still in use", "path", r.plan.Path, "left", left, daemon.EventID(eventLeftover))
		}
		r.rec.Created = left
	}
	// An unmount does not need a saved record: a daemon that finds the old record
	// repeats the unmount, which is harmless. The caller reports the failure.
	_ = r.save()
	return nil
}

// ownMount returns our topmost mount at the plan's path, or nil. A mount that another one
// hides is an error, because no command can reach it.
func (r *runner) ownMount() (*node.Mount, error) {
	table, err := r.machine.MountsOn(r.plan.Path)
	if err != nil {
		return nil, err
	}
	var hidden error
	for _, m := range slices.Backward(table) {
		mine, err := mustUnmount(r.machine, m, r.plan, r.rec)
		if err != nil {
			return nil, err
		}
		if !mine {
			continue
		}
		by, err := r.machine.HiddenBy(m)
		switch {
		case errors.Is(err, fs.ErrNotExist): // unmounted since
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

// chown sets the owner of the root of the mounted file system, or of the bound device
// node, after a check that the mount is ours.
func (r *runner) chown(s *plan.Step) error {
	defer r.spent(time.Now()) // a child process does it, except on a file system in memory
	m, err := r.machine.MountAt(r.plan.Path)
	if err != nil {
		return err
	}
	if m == nil {
		return nil // the profile has no mount command
	}
	if mine, err := matchesVolume(r.machine, *m, r.plan, r.rec); err != nil || !mine {
		if err == nil {
			err = errForeign(*m, r.plan)
		}
		return err
	}
	return r.machine.ChownMount(*m, s.UID, s.GID)
}

func identityOf(m node.Mount) *Identity {
	return &Identity{
		ID: m.ID, Device: m.Device().String(), Root: m.OriginalRoot(), FSType: m.FSType, Source: m.Source,
	}
}

// is reports whether a mount is the recorded one. The kernel reuses mount IDs and
// anonymous device numbers (major 0), so for the latter the source is compared as well.
// The source of a block device is not compared, because it changes when the device is
// renamed.
func (id *Identity) is(m node.Mount) bool {
	return id != nil && id.ID == m.ID && id.Device == m.Device().String() && id.Root == m.OriginalRoot() && id.FSType == m.FSType &&
		(m.Major != 0 || id.Source == m.Source)
}

// matchesVolume reports whether the mount at a plan's path gives access to the plan's volume. It
// compares device numbers, not the source, and does not touch the target, which may be
// on a server that does not respond. rec may be nil.
//
// It uses, in this order: the device node of the plan; the device-mapper name of the
// mounted device if the node no longer exists; the identity that was recorded right
// after our own mount. A Lustre file system has no device, so matchesVolume compares the recorded
// identity, or the servers and the file system name.
func matchesVolume(mc Machine, m node.Mount, p *plan.Plan, rec *MountRecord) (bool, error) {
	noted := rec != nil && rec.Mounted.is(m)
	switch {
	case p.Type == dws.TypeLustre:
		if m.FSType != failpoint.FSType(dws.TypeLustre) {
			return false, nil
		}
		return noted || plan.SameLustre(m.Source, p.Source()) || shownAs(mc, m, p), nil
	case p.Type == dws.TypeRaw:
		have, err := mc.BoundDevice(m)
		if err != nil {
			return noted && !m.Removed(), nil
		}
		return sameDevice(mc, have, p, noted)
	default:
		if m.FSType != failpoint.FSType(p.FSType) {
			return false, nil
		}
		if failpoint.HasNoDevice(p.FSType) {
			return noted || m.Source == p.Device, nil
		}
		return sameDevice(mc, m.Device(), p, noted)
	}
}

// lookupLimit bounds the lookup of the addresses of Lustre servers.
const lookupLimit = 2 * time.Second

// shownAs reports whether the kernel shows the addresses of the host names in the
// object. It is called last, because it uses the resolver.
func shownAs(mc Machine, m node.Mount, p *plan.Plan) bool {
	hosts := plan.LustreHosts(p.Source())
	if len(hosts) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupLimit)
	defer cancel()
	addresses := map[string][]string{}
	for _, host := range hosts {
		if found, err := mc.LookupHost(ctx, host); err == nil {
			addresses[host] = found
		}
	}
	return plan.ShownAs(p.Source(), m.Source, addresses)
}

func sameDevice(mc Machine, have node.Device, p *plan.Plan, noted bool) (bool, error) {
	if want, err := mc.BlockDevice(p.Device); err == nil {
		return have == want, nil
	}
	name, err := mc.DMName(have)
	if err != nil {
		return noted, nil
	}
	if name != "" {
		return name == p.DMName, nil
	}
	return noted, nil
}

// mustUnmount reports whether we must unmount a mount: it was recorded after our mount command,
// it gives access to our volume at our path, or it appeared after our mount command was
// about to run and the daemon died.
func mustUnmount(mc Machine, m node.Mount, p *plan.Plan, rec *MountRecord) (bool, error) {
	if rec.Mounted.is(m) {
		return true, nil
	}
	if mine, err := matchesVolume(mc, m, p, rec); mine || err != nil {
		return mine, err
	}
	if !rec.Mounting || m.FSType != failpoint.FSType(p.FSType) {
		return false, nil
	}
	// Another block device was mounted by another process. For a Lustre file system, the
	// kernel may show other servers than those in the command, but not another name.
	return p.Type == dws.TypeLustre && strings.HasSuffix(m.Source, ":/"+p.Lustre.FSName), nil
}

// errForeign reports a mount that is not ours, with a hint.
func errForeign(m node.Mount, p *plan.Plan) error {
	const hint = "; it does not belong to this ClientMount and is left mounted: unmount it, or correct mountPath"
	if p.Type == dws.TypeLustre {
		return fmt.Errorf("unexpected mount at path %s. Expected device %s of type lustre, found device %s type %s%s",
			p.Path, p.Source(), m.Source, m.FSType, hint)
	}
	return fmt.Errorf("unexpected mount at path %s. Device %s (%s) type %s, expected %s%s",
		p.Path, m.Source, m.Device(), m.FSType, p.Device, hint)
}

// errHidden reports that our mount cannot be used or unmounted because another one hides it.
func errHidden(mine node.Mount, by *node.Mount) error {
	return fmt.Errorf("unexpected mount at path %s. The mount of this ClientMount (mount id %d, device %s) is hidden by device %s type %s at %s, which does not belong to this ClientMount and is left mounted: unmount that one first",
		mine.Mountpoint, mine.ID, mine.Device(), by.Source, by.FSType, by.Mountpoint)
}

// serversFileName is the file in the root of a Lustre file system that lists for jobs
// the rabbits that serve it.
const serversFileName = ".nnf-servers.json"

// serversLimit bounds how many names one allocation may add.
const serversLimit = 1 << 16

// serversText returns one line of JSON with sorted keys; the five known keys are always
// present. A rabbit is listed once for each allocation, but only once in nnfNode.
func serversText(s *dws.Servers) ([]byte, error) {
	out := map[string][]string{"mdt": {}, "mgt": {}, "mgtmdt": {}, "nnfNode": {}, "ost": {}}
	total := 0
	for _, set := range s.Spec.AllocationSets {
		for _, st := range set.Storage {
			if total += max(st.AllocationCount, 0); total > serversLimit {
				return nil, errors.New("the Servers object lists too many allocations")
			}
			for range st.AllocationCount {
				out[set.Label] = append(out[set.Label], st.Name)
			}
			if !slices.Contains(out["nnfNode"], st.Name) {
				out["nnfNode"] = append(out["nnfNode"], st.Name)
			}
		}
	}
	b, err := json.Marshal(out)
	return append(b, '\n'), err
}

// serversFile carries out the step that needs the API server. It only logs a failure,
// because the mount is usable without the file.
func (a *attempt) serversFile(p *plan.Plan) {
	s := p.MountStep(plan.ServersFile)
	if s == nil {
		return
	}
	if err := a.writeServersFile(p, s); err != nil {
		a.log.Warn("could not write the Lustre servers file", "mount_path", p.Path, "error", err, daemon.EventID(eventServers))
	}
}

// writeServersFile writes that file. It needs permissions that the shipped role does not
// grant, so mount.servers_file is off by default.
func (a *attempt) writeServersFile(p *plan.Plan, s *plan.Step) error {
	servers, err := a.findServers()
	if err != nil {
		return err
	}
	text, err := serversText(servers)
	if err != nil {
		return err
	}
	return a.machine.WriteFileIn(p.Path, serversFileName, text, s.UID, s.GID)
}
