package clientmount

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

func identityOf(m node.Mount) *Identity {
	return &Identity{
		ID: m.ID, Device: m.Device().String(), Root: m.Root, FSType: m.FSType, Source: m.Source,
	}
}

// is reports whether a mount is the recorded one. The kernel gives mount ids, and
// the numbers of devices that are no hardware (major 0), to the next mount as soon
// as they are free, so there the source text counts as well. The text of a block
// device may change, when the device is renamed.
func (id *Identity) is(m node.Mount) bool {
	return id != nil && id.ID == m.ID && id.Device == m.Device().String() && id.Root == m.Root && id.FSType == m.FSType &&
		(m.Major != 0 || id.Source == m.Source)
}

// ours reports whether the mount at a plan's path gives access to the plan's
// volume. The kernel's device number decides, never the source text, and the
// target itself is not touched: it may be on a server that does not answer.
// rec may be nil.
//
// In the order of trust: the device node that the plan names; the device
// mapper name of the mounted device, when the node is gone already; and what
// we noted right after our own mount. A Lustre file system has no device: what
// we noted, else its servers and its name.
func ours(mc Machine, m node.Mount, p *plan.Plan, rec *MountRecord) (bool, error) {
	noted := rec != nil && rec.Mounted.is(m)
	switch {
	case p.Type == dws.TypeLustre:
		if m.FSType != fstype("lustre") {
			return false, nil
		}
		return noted || plan.SameLustre(m.Source, p.Source()) || shownAs(mc, m, p), nil
	case p.Type == dws.TypeRaw:
		have, err := mc.BoundDevice(m)
		if err != nil {
			return noted, nil
		}
		return sameDevice(mc, have, p, noted)
	default:
		if m.FSType != fstype(p.FSType) {
			return false, nil
		}
		if hasNoDevice(p.FSType) {
			return noted || m.Source == p.Device, nil
		}
		return sameDevice(mc, m.Device(), p, noted)
	}
}

// lookupLimit bounds how long the addresses of a Lustre server are looked up.
const lookupLimit = 2 * time.Second

// shownAs reports whether the kernel shows addresses where the object has host
// names. It asks the resolver, so it comes last.
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

// made reports whether a mount must be undone by us: it was noted after our
// mount command, or it gives access to our volume at our path, or our command
// was about to run when the daemon died and this appeared there.
func made(mc Machine, m node.Mount, p *plan.Plan, rec *MountRecord) (bool, error) {
	if rec.Mounted.is(m) {
		return true, nil
	}
	if mine, err := ours(mc, m, p, rec); mine || err != nil {
		return mine, err
	}
	if !rec.Mounting || m.FSType != fstype(p.FSType) {
		return false, nil
	}
	// Another process has mounted a block device that is not ours meanwhile.
	// Of a Lustre file system the kernel may show other servers than the
	// command named, but not another name.
	return p.Type == dws.TypeLustre && strings.HasSuffix(m.Source, ":/"+p.Lustre.FSName), nil
}

// errForeign reports a mount that is not ours, and what to do about it.
func errForeign(m node.Mount, p *plan.Plan) error {
	const hint = "; it was not made for this ClientMount and is left alone: unmount it manually, or correct mountPath"
	if p.Type == dws.TypeLustre {
		return fmt.Errorf("unexpected mount at path %s. Expected device %s of type lustre, found device %s type %s%s",
			p.Path, p.Source(), m.Source, m.FSType, hint)
	}
	return fmt.Errorf("unexpected mount at path %s. Device %s (%s) type %s, expected %s%s",
		p.Path, m.Source, m.Device(), m.FSType, p.Device, hint)
}

// errHidden reports that our mount cannot be unmounted, because a path leads to
// another one.
func errHidden(mine node.Mount, by *node.Mount) error {
	return fmt.Errorf("unexpected mount at path %s. The mount of this ClientMount (mount id %d, device %s) is hidden by device %s type %s at %s, which was not made for it and is left alone: unmount that one manually",
		mine.Mountpoint, mine.ID, mine.Device(), by.Source, by.FSType, by.Mountpoint)
}
