package clientmount

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// errNoLV means that LVM does not know the logical volume (yet).
var errNoLV = errors.New("could not find logical volume")

// activate activates the logical volume unless it is active already.
func (r *runner) activate(s *plan.Step) error {
	lv, err := r.findLV()
	if err != nil {
		return err
	}
	if lv == nil {
		return fmt.Errorf("%w %s/%s", errNoLV, r.plan.VG, r.plan.LV)
	}
	if lv.Active() {
		return nil
	}
	return r.command(s.Argv)
}

// deactivate deactivates the logical volume; if it is absent or inactive there is
// nothing to do.
func (r *runner) deactivate(s *plan.Step) error {
	lv, err := r.findLV()
	switch {
	case err != nil:
		return err
	case lv == nil:
		return r.removeMap()
	case !lv.Active():
		return nil
	}
	return r.command(s.Argv)
}

// removeMap removes the stale device of a volume whose storage was detached before
// the volume was deactivated: LVM no longer knows either, but the kernel still has
// the volume's device. It refers to disks that are gone, even if they are attached
// again, because they then get other devices; LVM would take the volume for
// active, and every mount would fail.
func (r *runner) removeMap() error {
	d, err := r.machine.BlockDevice(r.plan.Device)
	if err != nil {
		return nil // nothing is left
	}
	if name, err := r.machine.DMName(d); err != nil || name != r.plan.DMName {
		return nil // whatever it is, it is not the device mapper's
	}
	if err := r.command([]string{"dmsetup", "remove", r.plan.DMName}); err != nil {
		return fmt.Errorf("the storage went away before %s was deactivated, and its device cannot be removed: %w", r.plan.Device, err)
	}
	r.log.Warn("the storage went away before its volume was deactivated; the volume's device has been removed", "device", r.plan.Device,
		"hint", "look on the rabbit, and at dmesg and nvme list, why the namespaces were detached early", daemon.EventID(eventDiagnosis))
	return nil
}

// lockStop releases the shared volume group's locks if none of its volumes is in
// use any more. If the lock manager has ended already there is nothing to do.
func (r *runner) lockStop(s *plan.Step) error {
	began := time.Now()
	has, err := r.machine.HasVG(r.ctx, r.plan.VG, r.limits.Command)
	r.spent(began)
	if err != nil || !has {
		return err
	}
	lvs, err := r.lvs()
	if err != nil {
		return err
	}
	for _, lv := range lvs {
		if lv.VG == r.plan.VG && lv.Active() {
			return nil
		}
	}
	err = r.command(s.Argv)
	if err != nil && strings.Contains(err.Error(), "lvmlockd process is not running") {
		return nil
	}
	return err
}

func (r *runner) findLV() (*node.LV, error) {
	lvs, err := r.lvs()
	if err != nil {
		return nil, err
	}
	for i := range lvs {
		if lvs[i].VG == r.plan.VG && lvs[i].Name == r.plan.LV {
			return &lvs[i], nil
		}
	}
	return nil, nil
}

func (r *runner) lvs() ([]node.LV, error) {
	defer r.spent(time.Now())
	return r.machine.LVs(r.ctx, r.plan.VG, r.limits.Command)
}

func activation(k plan.Kind) bool {
	return k == plan.WaitVG || k == plan.LockStart || k == plan.Activate || k == plan.WaitDevice
}

// afterActivationFailure decides whether an activation is worth another try
// now: namespaces may have been attached since the last scan. Tries are counted, so
// a volume that never appears ends as an error with its cause.
func (r *runner) afterActivationFailure(cause error, retries *int) (again bool, err error) {
	if !r.plan.Rescan {
		return false, cause
	}
	if *retries >= r.limits.DeviceRetries {
		return false, fmt.Errorf("%w (after %d rescans of the NVMe devices)", cause, *retries)
	}
	*retries++
	want, nqns, bad := wanted(r.plan)
	if len(bad) > 0 {
		return false, fmt.Errorf("%w; nvmeInfo has entries that are no namespace: %s", cause, strings.Join(bad, ", "))
	}
	r.log.Debug("rescanning NVMe devices", "step", "rescan", "attempt", *retries, "error", cause, daemon.EventID(eventRescan))
	defer r.spent(time.Now())
	if err := r.machine.RescanNVMe(r.ctx, nqns, r.limits.Command); err != nil {
		return false, fmt.Errorf("%w; could not rescan NVMe devices: %w", cause, err)
	}
	if len(want) > 0 {
		missing, err := r.machine.WaitNamespaces(r.steps, want, r.limits.DeviceWait, r.limits.Command)
		switch {
		case r.interrupted():
			return false, errInterrupted
		case err != nil:
			return false, fmt.Errorf("%w; could not get NVMe device list: %w", cause, err)
		case len(missing) > 0:
			return false, fmt.Errorf("%w; NVMe namespaces are missing after a rescan: %s: is the storage attached to this node?", cause, namespaces(missing))
		}
	}
	// The namespaces are there (or unknown). The first retry is at once; LVM's
	// own scan may lag behind, so later ones leave it up to a second.
	if *retries > 1 {
		t := time.NewTimer(min(time.Second, time.Duration(*retries)*100*time.Millisecond))
		defer t.Stop()
		select {
		case <-t.C:
		case <-r.steps.Done():
		}
	}
	if r.interrupted() {
		return false, errInterrupted
	}
	return true, nil
}

// diagnose logs what an administrator needs when a deactivation failed.
func (r *runner) diagnose() {
	names := "unknown"
	if list, err := r.apart.Namespaces(r.ctx, r.limits.Command); err == nil {
		names = namespaces(list)
	}
	dlm, err := r.apart.Run(r.ctx, node.Command{Argv: []string{"dlm_tool", "ls", "-n"}, Timeout: r.limits.Command})
	text := strings.TrimSpace(dlm.Stdout)
	if err != nil {
		text = err.Error()
	}
	r.log.Warn("state of the devices after a failed deactivation", "namespaces", names, "dlm", text, daemon.EventID(eventDiagnosis))
}

// deleteRescanLimit bounds the rescan before a finalizer is removed.
const deleteRescanLimit = 10 * time.Second

// rescan makes the kernel forget namespaces that the rabbit detaches after the
// deletion of a ClientMount. It must not wait for a command that hangs. Failures are
// only logged.
func (t *task) rescan(plans []*plan.Plan) {
	var want []node.Namespace
	var nqns []string
	blocks := false
	for _, p := range plans {
		if p.Type == dws.TypeLustre {
			continue
		}
		blocks = true
		w, q, _ := wanted(p)
		want, nqns = append(want, w...), append(nqns, q...)
	}
	if !blocks {
		return
	}
	ctx, cancel := context.WithTimeout(t.ctx, deleteRescanLimit)
	defer cancel()
	machine := t.machineFor(ctx, t.log, purpose{uid: t.uid, apart: true})
	limit := t.limits().Command
	if err := machine.RescanNVMe(ctx, nqns, limit); err != nil {
		t.log.Warn("could not rescan NVMe devices", "error", err, daemon.EventID(eventRescan))
		return
	}
	if len(want) == 0 {
		return
	}
	have, err := machine.Namespaces(ctx, limit)
	if err != nil {
		t.log.Warn("could not get NVMe device list", "error", err, daemon.EventID(eventRescan))
		return
	}
	var still []node.Namespace
	for _, w := range want {
		for _, h := range have {
			if h.NQN == w.NQN && h.NSID == w.NSID {
				still = append(still, h)
			}
		}
	}
	if len(still) > 0 {
		t.log.Warn("NVMe namespaces are still attached", "namespaces", namespaces(still), daemon.EventID(eventRescan))
	}
}

func namespaces(list []node.Namespace) string {
	var s []string
	for _, n := range list {
		t := n.NQN + " namespace " + strconv.FormatUint(n.NSID, 10)
		if n.Device != "" {
			t = n.Device + " (" + t + ")"
		}
		s = append(s, t)
	}
	if len(s) == 0 {
		return "none"
	}
	return strings.Join(s, ", ")
}

// wanted turns a plan's NVMe list into what the node can look for. Entries whose
// namespace id is not a decimal number cannot be found and are listed in bad.
func wanted(p *plan.Plan) (want []node.Namespace, nqns []string, bad []string) {
	for _, n := range p.NVMe {
		id, err := strconv.ParseUint(n.NamespaceID, 10, 32)
		if err != nil {
			bad = append(bad, n.DeviceSerial+"/"+n.NamespaceID)
			continue
		}
		want = append(want, node.Namespace{NQN: n.DeviceSerial, NSID: id})
		nqns = append(nqns, n.DeviceSerial)
	}
	return want, nqns, bad
}
