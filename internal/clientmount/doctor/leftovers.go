package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The checks of this file are about what earlier mounts have left behind.

// checkRecords checks the records of mounts.
func checkRecords(f *facts) []finding {
	if err := f.records.err; err != nil {
		return []finding{fail("check the directory "+f.directory, "cannot be read: %s", strings.TrimPrefix(oneLine(err), "records cannot be read: "))}
	}
	r := f.records.value
	var list []finding
	for _, problem := range r.unreadable {
		text, next := problem, ""
		if i := strings.LastIndex(problem, "; "); i >= 0 {
			text, next = problem[:i], problem[i+2:]
		}
		list = append(list, fail(next, "%s", text))
	}
	if f.server != nil && f.server.objects.err == nil {
		for _, one := range r.list {
			exists := slices.ContainsFunc(f.server.objects.value, func(o *dws.ClientMount) bool { return string(o.UID) == one.UID })
			if !exists && len(paths(one)) > 0 {
				list = append(list, warn("unmount them when the job has finished; see journalctl -u clientmountd -b EVENT=orphan -x",
					"the ClientMount %s no longer exists, but its mounts are recorded: %s", one.Name, some(paths(one), same)))
			}
		}
	}
	return append(list, ok("%s recorded in %s", count(len(r.list), "ClientMount"), f.directory))
}

func paths(r *clientmount.Record) (list []string) {
	for _, m := range r.Mounts {
		if !m.Unmounted {
			list = append(list, m.Plan.Path)
		}
	}
	return list
}

// recorded returns the records of mounts that are not unmounted.
func (f *facts) recorded() (list []*clientmount.MountRecord) {
	if f.records.value != nil {
		for _, r := range f.records.value.list {
			for i := range r.Mounts {
				if !r.Mounts[i].Unmounted {
					list = append(list, &r.Mounts[i])
				}
			}
		}
	}
	return list
}

// nnfDirectory is where Near-Node Flash mounts unless a storage profile sets another path.
const nnfDirectory = "/mnt/nnf"

// checkMounts compares the mounts below mount.roots with the records.
func checkMounts(f *facts) []finding {
	if f.mounts.err != nil {
		return []finding{fail("see /proc/self/mountinfo", "the mounts are not known: %s", oneLine(f.mounts.err))}
	}
	if f.records.err != nil {
		return skip("the records cannot be read")
	}
	records := f.recorded()
	var list []finding
	others := 0
	for _, m := range f.mounts.value {
		known := slices.ContainsFunc(records, func(r *clientmount.MountRecord) bool { return safepath.Within(m.Mountpoint, r.Plan.Path) })
		switch {
		case known:
		case rabbitDevice(m.Source) || safepath.Within(m.Mountpoint, nnfDirectory):
			list = append(list, warn("if no job uses it, run umount "+text.ShellWord(m.Mountpoint), "%s (%s, %s) is mounted but has no record, so clientmountd does not unmount it", m.Mountpoint, m.FSType, m.Source))
		default:
			others++
		}
	}
	for _, r := range records {
		if r.Ready && !r.Unmounting && r.Plan.LinkTo == "" && len(r.Plan.Mount) > 0 && !f.mounted(r.Plan.Path) {
			list = append(list, fail("run systemctl restart clientmountd, which mounts it again; find out what has unmounted it", "%s is recorded as mounted, but is not", r.Plan.Path))
		}
	}
	text := "no mounts recorded"
	if len(records) > 0 {
		text = count(len(records), "mount") + " recorded, and those that are ready are in place"
	}
	return only(list, ok("%s; %s below mount.roots", text, count(others, "other mount")))
}

func (f *facts) mounted(path string) bool {
	return slices.ContainsFunc(f.mounts.value, func(m node.Mount) bool { return m.Mountpoint == path })
}

// rabbitGroup matches the names of the volume groups that a rabbit creates: the UID of an object,
// the index of the directive and, unless the group is shared, that of the allocation.
var rabbitGroup = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}_[0-9]+(_[0-9]+)?$`)

// rabbitDevice reports whether the source of a mount is a volume that a rabbit has created.
func rabbitDevice(source string) bool {
	name, ok := strings.CutPrefix(source, "/dev/mapper/")
	if !ok {
		return false
	}
	group, _, ok := cutDMName(name)
	return ok && rabbitGroup.MatchString(group)
}

// cutDMName splits a name of the device mapper into volume group and volume: dashes in the names are
// doubled.
func cutDMName(name string) (group, volume string, ok bool) {
	for i := 0; i < len(name); i++ {
		if name[i] != '-' {
			continue
		}
		if i+1 < len(name) && name[i+1] == '-' {
			i++
			continue
		}
		undo := func(s string) string { return strings.ReplaceAll(s, "--", "-") }
		return undo(name[:i]), undo(name[i+1:]), true
	}
	return "", "", false
}

// checkVolumes looks for active volumes of rabbits that no ClientMount uses.
func checkVolumes(f *facts) []finding {
	if f.volumes.err != nil {
		return skip("lvs does not report the volumes")
	}
	if f.records.err != nil {
		return skip("the records cannot be read")
	}
	records := f.recorded()
	used := func(lv node.LV) bool {
		return slices.ContainsFunc(records, func(r *clientmount.MountRecord) bool { return r.Plan.VG == lv.VG && r.Plan.LV == lv.Name })
	}
	var list []finding
	active := 0
	for _, lv := range f.volumes.value {
		if !lv.Active() || !rabbitGroup.MatchString(lv.VG) || strings.TrimRight(lv.Name, "-0123456789") != plan.VolumePrefix {
			continue
		}
		if used(lv) {
			active++
			continue
		}
		list = append(list, warn(fmt.Sprintf("if no job uses it, run lvchange --activate n %s/%s", lv.VG, lv.Name), "%s/%s is active but has no record, so clientmountd does not deactivate it", lv.VG, lv.Name))
	}
	return only(list, ok("%s of rabbits, all with a record", count(active, "active volume")))
}

// Ages above which a command that waits in the kernel is reported.
const (
	hangAge    = 10 * time.Second
	defaultAge = 2 * time.Minute // if the configuration cannot be loaded
)

// hangError is the reason why a command is not run: an earlier one hangs.
type hangError struct {
	program string
	pid     int
}

func (e hangError) Error() string {
	return fmt.Sprintf("not run, because an earlier %s still hangs (pid %d)", e.program, e.pid)
}

// checkCommands looks for commands of the daemon that wait in the kernel.
func checkCommands(f *facts) []finding {
	var list []finding
	limit := defaultAge
	if f.settings.err == nil {
		limit = f.settings.value.Controller.Limits.Command
	}
	for _, p := range f.marked.value {
		if !p.Kernel || p.Age < hangAge && !p.Killed {
			continue
		}
		where := ""
		if p.Waits != "" {
			where = " in " + p.Waits
		}
		line := fmt.Sprintf("%s (pid %d) has been running for %v and waits in the kernel%s", text.Clip(p.Line, 300), p.PID, p.Age.Truncate(time.Second), where)
		next := fmt.Sprintf("see /proc/%d/stack; check the device, the servers or the locks that it waits for; if the command never finishes, drain the node and reboot it", p.PID)
		switch {
		case p.Unreadable:
			list = append(list, warn(next, "%s; whether clientmountd started it is not known", line))
		case p.Killed || p.Age > limit:
			list = append(list, fail(next, "%s", line))
		default:
			list = append(list, warn(next, "%s", line))
		}
	}
	if err := f.marked.err; err != nil {
		list = append(list, fail("see ps -eo pid,stat,wchan:32,args", "the processes are not known: %s", oneLine(err)))
	}
	return only(list, ok("no command of clientmountd hangs"))
}
