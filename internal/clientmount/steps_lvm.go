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

// errNoLV means that LVM does not see the logical volume (yet).
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

// deactivate deactivates the logical volume unless it is absent or inactive.
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

// removeMap removes the stale device of a volume whose storage was detached before the
// volume was deactivated. LVM no longer sees the volume, but the kernel still has its
// device, which refers to removed disks. If the disks are attached again they get other
// devices, but LVM would still consider the volume active, and every mount would fail.
func (r *runner) removeMap() error {
	d, err := r.machine.BlockDevice(r.plan.Device)
	if err != nil {
		return nil // nothing is left
	}
	if name, err := r.machine.DMName(d); err != nil || name != r.plan.DMName {
		return nil // it is not a device of the device mapper
	}
	if err := r.command([]string{"dmsetup", "remove", r.plan.DMName}); err != nil {
		return fmt.Errorf("storage was detached before %s was deactivated, and the stale device cannot be removed: %w", r.plan.Device, err)
	}
	r.log.Warn("storage was detached before its volume was deactivated; removed the stale device", "device", r.plan.Device,
		"hint", "find out on the rabbit why the namespaces were detached early; on this node, check dmesg and nvme list", daemon.EventID(eventDiagnosis))
	return nil
}

// lockStop stops the lockspace of the shared volume group if none of its volumes is
// active. If lvmlockd does not run, there is nothing to do.
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

// afterActivationFailure rescans the NVMe devices after a failed activation, because
// namespaces may have been attached since the last scan. again reports whether to retry
// the activation. The retries are counted, so a volume that never appears results in an
// error with its cause.
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
		return false, fmt.Errorf("%w; nvmeInfo has invalid entries: %s", cause, strings.Join(bad, ", "))
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
			return false, fmt.Errorf("%w; NVMe namespaces are missing after a rescan: %s; check that the storage is attached to this node", cause, namespaces(missing))
		}
	}
	// The namespaces are attached, or unknown. The first retry is immediate. LVM's own
	// scan may need more time, so later retries wait up to a second.
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

// diagnose logs the NVMe namespaces and the lockspaces after a failed deactivation.
func (r *runner) diagnose() {
	names := "unknown"
	if list, err := r.independent.Namespaces(r.ctx, r.limits.Command); err == nil {
		names = namespaces(list)
	}
	dlm, err := r.independent.Run(r.ctx, node.Command{Argv: []string{"dlm_tool", "ls", "-n"}, Timeout: r.limits.Command})
	text := strings.TrimSpace(dlm.Stdout)
	if err != nil {
		text = err.Error()
	}
	r.log.Warn("state of the devices after a failed deactivation", "namespaces", names, "dlm", text, daemon.EventID(eventDiagnosis))
}

// deleteRescanLimit bounds the rescan before a finalizer is removed.
const deleteRescanLimit = 10 * time.Second

// rescan makes the kernel drop namespaces that the rabbit has detached. It runs when a
// ClientMount is deleted, must not wait for a command that hangs, and only logs failures.
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
	machine := t.machineFor(ctx, t.log, purpose{uid: t.uid, independent: true})
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

// wanted converts a plan's NVMe list for package node.
func wanted(p *plan.Plan) (want []node.Namespace, nqns []string, bad []string) {
	return Wanted(p.NVMe)
}

// Wanted converts the NVMe list of a ClientMount for package node. bad lists the entries whose
// namespace ID is not a decimal number.
func Wanted(list []dws.NVMeNamespace) (want []node.Namespace, nqns []string, bad []string) {
	for _, n := range list {
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
