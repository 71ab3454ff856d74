package clientmount

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// errNoLV means that LVM does not know the logical volume (yet).
var errNoLV = errors.New("could not find logical volume")

// activate brings the logical volume up unless it is active already (contract
// clientmountd.md 5.2, steps 4 and 5).
func (r *runner) activate(ctx context.Context, s *plan.Step) error {
	lv, err := r.findLV(ctx)
	if err != nil {
		return err
	}
	if lv == nil {
		return fmt.Errorf("%w %s/%s", errNoLV, r.plan.VG, r.plan.LV)
	}
	if lv.Active() {
		return nil
	}
	return r.command(ctx, s.Argv)
}

// deactivate takes the logical volume down; absent or inactive is done.
func (r *runner) deactivate(ctx context.Context, s *plan.Step) error {
	lv, err := r.findLV(ctx)
	switch {
	case err != nil:
		return err
	case lv == nil:
		return r.removeMap(ctx)
	case !lv.Active():
		return nil
	}
	return r.command(ctx, s.Argv)
}

// removeMap takes away what the storage has left that went before its volume
// was deactivated: LVM knows neither any more, but the kernel still has the
// volume's device. It leads to disks that are gone, also when they come back,
// because they come back as others; and LVM would then take the volume for
// active, and every mount would fail.
func (r *runner) removeMap(ctx context.Context) error {
	d, err := r.machine.BlockDevice(r.plan.Device)
	if err != nil {
		return nil // nothing is left
	}
	if name, err := r.machine.DMName(d); err != nil || name != r.plan.DMName {
		return nil // whatever it is, it is not the device mapper's
	}
	if err := r.command(ctx, []string{"dmsetup", "remove", r.plan.DMName}); err != nil {
		return fmt.Errorf("the storage went away before %s was deactivated, and its device cannot be removed: %w", r.plan.Device, err)
	}
	r.log.Warn("the storage went away before its volume was deactivated; the volume's device has been removed", "device", r.plan.Device,
		"hint", "look on the rabbit, and at dmesg and nvme list, why the namespaces were detached early", daemon.EventID(eventDiagnosis))
	return nil
}

// lockStop gives up the shared volume group's locks when none of its volumes
// is in use any more. A lock manager that is gone already is as good.
func (r *runner) lockStop(ctx context.Context, s *plan.Step) error {
	began := time.Now()
	has, err := r.machine.HasVG(ctx, r.plan.VG, r.limits.Command)
	r.commands += time.Since(began)
	if err != nil || !has {
		return err
	}
	lvs, err := r.lvs(ctx)
	if err != nil {
		return err
	}
	for _, lv := range lvs {
		if lv.VG == r.plan.VG && lv.Active() {
			return nil
		}
	}
	err = r.command(ctx, s.Argv)
	if err != nil && strings.Contains(err.Error(), "lvmlockd process is not running") {
		return nil
	}
	return err
}

func (r *runner) findLV(ctx context.Context) (*node.LV, error) {
	lvs, err := r.lvs(ctx)
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

func (r *runner) lvs(ctx context.Context) ([]node.LV, error) {
	began := time.Now()
	lvs, err := r.machine.LVs(ctx, r.plan.VG, r.limits.Command)
	r.commands += time.Since(began)
	return lvs, err
}

func activation(k plan.Kind) bool {
	return k == plan.WaitVG || k == plan.LockStart || k == plan.Activate || k == plan.WaitDevice
}

// firstActivation is the index of the first step of the activation group;
// there is one, because one of them failed.
func firstActivation(steps []plan.Step) int {
	for i := range steps {
		if activation(steps[i].Kind) {
			return i
		}
	}
	return 0
}

// afterActivationFailure decides whether an activation is worth another try
// now (contract 5.4): namespaces may have been attached since the last scan.
// Tries are counted, so a volume that never comes ends as an error with its
// cause and not as an endless loop.
func (r *runner) afterActivationFailure(ctx context.Context, cause error, retries *int) (again bool, err error) {
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
	began := time.Now()
	defer func() { r.commands += time.Since(began) }()
	if err := r.machine.RescanNVMe(ctx, nqns, r.limits.Command); err != nil {
		return false, fmt.Errorf("%w; could not rescan NVMe devices: %w", cause, err)
	}
	if len(want) > 0 {
		missing, err := r.machine.WaitNamespaces(r.waits, want, r.limits.DeviceWait, r.limits.Command)
		switch {
		case r.stop():
			return false, errSuperseded
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
		case <-r.waits.Done():
		}
	}
	if r.stop() {
		return false, errSuperseded
	}
	return true, nil
}

// diagnose writes to the log what an administrator needs when a deactivation
// failed (contract 5.2, step 9). It never fails.
func (r *runner) diagnose(ctx context.Context) {
	names := "unknown"
	if list, err := r.apart.Namespaces(ctx, r.limits.Command); err == nil {
		names = namespaces(list)
	}
	dlm, err := r.apart.Run(ctx, node.Command{Argv: []string{"dlm_tool", "ls", "-n"}, Timeout: r.limits.Command})
	text := strings.TrimSpace(dlm.Stdout)
	if err != nil {
		text = err.Error()
	}
	r.log.Warn("state of the devices after a failed deactivation", "namespaces", names, "dlm", text, daemon.EventID(eventDiagnosis))
}

// rescanOnDelete makes the kernel forget namespaces that the rabbit takes away
// (contract 4.3). It is a courtesy: failures are logged and hold up nothing.
func rescanOnDelete(ctx context.Context, mc Machine, plans []*plan.Plan, l Limits, warn func(msg string, args ...any)) {
	var want []node.Namespace
	var nqns []string
	any := false
	for _, p := range plans {
		if p.Type == "lustre" {
			continue
		}
		any = true
		w, q, _ := wanted(p)
		want, nqns = append(want, w...), append(nqns, q...)
	}
	if !any {
		return
	}
	if err := mc.RescanNVMe(ctx, nqns, l.Command); err != nil {
		warn("could not rescan NVMe devices", "error", err)
		return
	}
	if len(want) == 0 {
		return
	}
	have, err := mc.Namespaces(ctx, l.Command)
	if err != nil {
		warn("could not get NVMe device list", "error", err)
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
		warn("NVMe namespaces are still attached", "namespaces", namespaces(still))
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

func parseNSID(s string) (uint64, error) { return strconv.ParseUint(s, 10, 32) }

// wanted turns a plan's NVMe list into what the node can look for. Entries
// that are no decimal namespace id cannot be found and are named by bad.
func wanted(p *plan.Plan) (want []node.Namespace, nqns []string, bad []string) {
	for _, n := range p.NVMe {
		id, err := parseNSID(n.NamespaceID)
		if err != nil {
			bad = append(bad, n.DeviceSerial+"/"+n.NamespaceID)
			continue
		}
		want = append(want, node.Namespace{NQN: n.DeviceSerial, NSID: id})
		nqns = append(nqns, n.DeviceSerial)
	}
	return want, nqns, bad
}
