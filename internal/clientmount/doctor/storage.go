package doctor

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
)

// The checks of this file are about the storage below the mounts.

// demand is what the ClientMounts of this node need: those with a record, and those of the API server
// if it has answered.
type demand struct {
	block, shared, lustre bool
	sharedNow, lustreNow  bool // a mount of this kind is in place, so what it needs must run now
	namespaces            []wanted
}

// wanted is an NVMe namespace that a ClientMount needs.
type wanted struct {
	clientMount string
	node.Namespace
}

// demand sums up the records and the objects. A mount that is being unmounted no longer needs its
// namespaces.
func (f *facts) demand() (d demand) {
	recorded := map[string]bool{}
	if f.records.value != nil {
		for _, r := range f.records.value.list {
			recorded[r.UID] = true
			for i := range r.Mounts {
				d.record(r.Name, &r.Mounts[i])
			}
		}
	}
	if f.server == nil {
		return d
	}
	for _, o := range f.server.objects.value {
		if o.Spec.DesiredState == dws.Mounted && o.DeletionTimestamp == nil && !recorded[string(o.UID)] {
			for i := range o.Spec.Mounts {
				d.object(o.Name, &o.Spec.Mounts[i])
			}
		}
	}
	return d
}

func (d *demand) record(name string, m *clientmount.MountRecord) {
	now := m.Mounted != nil || m.Ready
	switch {
	case m.Unmounted:
	case m.Plan.Type == dws.TypeLustre:
		d.lustre, d.lustreNow = true, d.lustreNow || now
	default:
		d.block = true
		if m.Plan.MountStep(plan.LockStart) != nil {
			d.shared, d.sharedNow = true, d.sharedNow || now
		}
		if !m.Unmounting {
			d.need(name, m.Plan.NVMe)
		}
	}
}

func (d *demand) object(name string, m *dws.Mount) {
	if m.Type == dws.TypeLustre {
		d.lustre = true
		return
	}
	d.block = true
	d.shared = d.shared || m.Type == dws.TypeGFS2
	if m.Device.LVM != nil {
		d.need(name, m.Device.LVM.NVMeInfo)
	}
}

func (d *demand) need(name string, list []dws.NVMeNamespace) {
	want, _, _ := clientmount.Wanted(list)
	for _, n := range want {
		d.namespaces = append(d.namespaces, wanted{name, n})
	}
}

// checkLVM checks the programs of LVM and a report.
func checkLVM(f *facts) []finding {
	if len(f.missing) > 0 {
		one := warn("install the packages that have them, such as lvm2", "programs that mounts of block devices need are missing: %s", strings.Join(f.missing, ", "))
		if f.demand().block {
			one.state = checklist.Fail
		}
		return []finding{one}
	}
	var c *node.CommandError
	switch err := f.volumes.err; {
	case err == nil:
	case errors.As(err, new(timeoutError)) || errors.As(err, new(hangError)) || errors.As(err, &c) && c.TimedOut:
		return []finding{fail("see the commands that hang, below, and look for failed devices: dmesg, nvme list, dmsetup info", "lvs hangs: %s", oneLine(err))}
	default:
		return []finding{fail("run lvs, and correct what it reports", "lvs failed: %s", oneLine(err))}
	}
	var list []finding
	for _, note := range f.notes {
		list = append(list, warn("run lvs, and correct what it reports", "%s", note))
	}
	active := 0
	for _, lv := range f.volumes.value {
		if lv.Active() {
			active++
		}
	}
	return append(list, ok("lvs reports %s, %d of them active", count(len(f.volumes.value), "volume"), active))
}

// checkLVMSettings checks the settings in lvm.conf that break the reports that the daemon parses, or
// with which LVM does not see or activate the storage of a rabbit. They were tested with LVM 2.03.16.
func checkLVMSettings(f *facts) []finding {
	if f.lvm.err != nil {
		if len(f.missing) > 0 {
			return skip("LVM is not installed")
		}
		return []finding{fail("run lvmconfig, and correct what it reports", "cannot be read: %s", oneLine(f.lvm.err))}
	}
	s := f.lvm.value
	var list []finding
	bad := func(name, effect string) {
		list = append(list, fail("remove it from /etc/lvm/lvm.conf or lvmlocal.conf", "%s=%s: %s", name, strings.Join(s[name], ","), effect))
	}
	if s.On("report/prefixes") {
		bad("report/prefixes", "the reports of lvs and vgs are not valid JSON, so no volume is found")
	}
	if s.On("global/test") {
		bad("global/test", "LVM only pretends to activate volumes")
	}
	if s.Get("global/activation") == "0" {
		bad("global/activation", "LVM activates no volumes")
	}
	if s.Get("devices/dir") != "/dev" && len(s["devices/dir"]) > 0 {
		bad("devices/dir", "the daemon looks for volumes in /dev")
	}
	if scan := s["devices/scan"]; len(scan) > 0 && !slices.Contains(scan, "/dev") {
		bad("devices/scan", "LVM does not see the NVMe devices in /dev")
	}
	for name, effect := range map[string]string{
		"activation/volume_list":           "LVM refuses to activate the volumes of a rabbit, whose names are different for each job",
		"activation/read_only_volume_list": "LVM may activate the volumes of a rabbit read-only",
	} {
		if _, set := s[name]; set {
			bad(name, effect)
		}
	}
	for _, name := range []string{"devices/filter", "devices/global_filter"} {
		list = append(list, f.checkFilter(name)...)
	}
	list = append(list, f.checkDevicesFile()...)
	slices.SortStableFunc(list, func(a, b finding) int { return strings.Compare(a.text, b.text) })
	return only(list, ok("no setting that disturbs clientmountd"))
}

// checkFilter checks whether a filter rejects NVMe namespaces.
func (f *facts) checkFilter(name string) []finding {
	filter := f.lvm.value[name]
	devices := map[string][]string{}
	for _, n := range f.namespaces.value {
		devices[n.Device] = append([]string{n.Device}, f.aliases[n.Device]...)
	}
	if len(devices) == 0 { // those that a rabbit will attach
		devices["/dev/nvme0n1"] = []string{"/dev/nvme0n1"}
	}
	var rejected []string
	for device, names := range devices {
		accepted, err := node.LVMAccepts(filter, names)
		if err != nil {
			return []finding{warn("run pvs -a, which lists the devices that LVM accepts", "%s: cannot tell which devices it accepts: %s", name, oneLine(err))}
		}
		if !accepted {
			rejected = append(rejected, device)
		}
	}
	slices.Sort(rejected)
	if len(rejected) == 0 {
		return nil
	}
	return []finding{fail(`accept the NVMe devices of rabbits in /etc/lvm/lvm.conf, for example with "a|^/dev/nvme|"`, "%s rejects %s, so LVM may not see the storage of a rabbit", name, some(rejected, same))}
}

// checkDevicesFile checks whether LVM uses a fixed list of devices.
func (f *facts) checkDevicesFile() []finding {
	file := f.lvm.value.Get("devices/devicesfile")
	if !f.lvm.value.On("devices/use_devicesfile") || !f.devicesFile {
		return nil
	}
	one := warn("set devices/use_devicesfile=0 in /etc/lvm/lvm.conf", "LVM uses only the devices in /etc/lvm/devices/%s, and the namespaces of a rabbit are different for each job", file)
	if len(f.demand().namespaces) > 0 {
		one.state = checklist.Fail
	}
	return []finding{one}
}

// checkDeviceMapper checks the modules that LVM needs and that the unit does not let it load.
func checkDeviceMapper(f *facts) []finding {
	k := f.kernel.value
	if f.kernel.err != nil {
		return []finding{warn("", "not known: %s", oneLine(f.kernel.err))}
	}
	var list []finding
	if !k.deviceMapper {
		one := warn("run modprobe dm_mod; /usr/lib/modules-load.d/clientmountd.conf loads it at boot", "the module dm_mod is not loaded")
		if f.demand().block {
			one.state = checklist.Fail
		}
		list = append(list, one)
	}
	if !k.raid {
		list = append(list, warn("run modprobe dm_raid; /usr/lib/modules-load.d/clientmountd.conf loads it at boot", "the module dm_raid is not loaded, which raid volumes need"))
	}
	return only(list, ok("dm_mod and dm_raid are loaded"))
}

// checkNVMe compares the NVMe namespaces with those that the ClientMounts need.
func checkNVMe(f *facts) []finding {
	if err := f.namespaces.err; err != nil {
		return []finding{fail("run nvme list", "the namespaces are not known: %s", oneLine(err))}
	}
	have := f.namespaces.value
	need := f.demand().namespaces
	missing := slices.DeleteFunc(slices.Clone(need), func(w wanted) bool {
		return slices.ContainsFunc(have, func(h node.Namespace) bool { return h.NQN == w.NQN && h.NSID == w.NSID })
	})
	if len(missing) > 0 {
		return []finding{fail("check on the rabbit that its storage is attached to this node; here, see nvme list and dmesg",
			"%d of %d namespaces are missing: %s", len(missing), len(need), some(missing, func(w wanted) string {
				return fmt.Sprintf("%s namespace %d of ClientMount %s", w.NQN, w.NSID, w.clientMount)
			}))}
	}
	text := count(len(have), "namespace") + "; ClientMounts need none"
	if len(need) > 0 {
		text = fmt.Sprintf("%s, with all %d that ClientMounts need", count(len(have), "namespace"), len(need))
	}
	if f.server == nil || f.server.objects.err != nil {
		text += "; only ClientMounts with a record are known"
	}
	return []finding{ok("%s", text)}
}

// lockPrograms are the programs that gfs2 with locks needs.
var lockPrograms = []string{"corosync", "dlm_controld", "lvmlockd"}

// checkLocks checks what shared volume groups need.
func checkLocks(f *facts) []finding {
	d := f.demand()
	if !d.shared {
		return skip("no ClientMount of this node uses a shared volume group")
	}
	var list []finding
	severe := func(one finding) {
		if !d.sharedNow { // hooks may start the services
			one.state = checklist.Warn
		}
		list = append(list, one)
	}
	if f.programs.err != nil {
		list = append(list, warn("", "the running programs are not known: %s", oneLine(f.programs.err)))
	} else if absent := slices.DeleteFunc(slices.Clone(lockPrograms), func(p string) bool { return f.programs.value[p] }); len(absent) > 0 {
		severe(fail("start corosync, dlm and lvmlockd, or let hooks of the storage profile start them; see journalctl -u dlm -u lvmlockd", "gfs2 needs programs that do not run: %s", strings.Join(absent, ", ")))
	}
	if f.lvm.err == nil && !f.lvm.value.On("global/use_lvmlockd") {
		severe(fail("set global/use_lvmlockd=1 in /etc/lvm/lvm.conf", "global/use_lvmlockd=0: LVM cannot use shared volume groups"))
	}
	return only(list, ok("%s run, and LVM uses them", strings.Join(lockPrograms, ", ")))
}

// checkLustre checks what Lustre mounts need.
func checkLustre(f *facts) []finding {
	d := f.demand()
	k := f.kernel.value
	switch {
	case !d.lustre && !k.lustre && !k.lnet:
		return skip("no ClientMount of this node uses Lustre, and its modules are not loaded")
	case f.kernel.err != nil:
		return []finding{warn("", "not known: %s", oneLine(f.kernel.err))}
	case d.lustre && !k.lustreModules:
		return []finding{fail("install the Lustre client for the kernel of this node", "the kernel %s has no module lustre", k.release)}
	case d.lustreNow && !k.lustre:
		return []finding{fail("run modprobe lustre", "the module lustre is not loaded")}
	case !k.lnet:
		return []finding{warn("run modprobe lnet, and lnetctl lnet configure", "the module lnet is not loaded; a mount loads it with its default configuration")}
	}
	if err := f.nids.err; err != nil {
		var c *node.CommandError
		if errors.As(err, new(timeoutError)) || errors.As(err, &c) && c.TimedOut {
			return []finding{fail("see dmesg", "lctl list_nids hangs: %s", oneLine(err))}
		}
		one := warn("run lctl list_nids; check /etc/lnet.conf and systemctl status lnet", "the networks of LNet are not known: %s", oneLine(err))
		if d.lustreNow {
			one.state = checklist.Fail
		}
		return []finding{one}
	}
	nids := strings.Fields(f.nids.value)
	if len(nids) == 0 {
		one := warn("check /etc/lnet.conf and systemctl status lnet", "LNet has no network")
		if d.lustre {
			one.state = checklist.Fail
		}
		return []finding{one}
	}
	return []finding{ok("LNet uses %s", some(nids, same))}
}
