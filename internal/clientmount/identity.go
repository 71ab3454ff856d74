package clientmount

import (
	"fmt"

	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/volume"
)

func identityOf(m node.Mount) *Identity {
	return &Identity{
		ID: m.ID, Device: deviceOf(m).String(), Root: m.Root, FSType: m.FSType, Source: m.Source,
	}
}

func deviceOf(m node.Mount) node.Device {
	return node.Device{Major: uint32(m.Major), Minor: uint32(m.Minor)}
}

// ours tells whether the mount at a plan's path is the plan's own. The kernel's
// device number decides, never the source text, and the target itself is not
// touched: it may be on a server that does not answer. rec may be nil.
//
// In the order of trust: the device node that the plan names; the device
// mapper name of the mounted device, when the node is gone already; and what
// we noted right after our own mount.
func ours(mc Machine, m node.Mount, p *volume.Plan, rec *MountRecord) (bool, error) {
	noted := rec != nil && rec.Mounted != nil && *rec.Mounted == *identityOf(m)
	switch {
	case p.Type == "lustre":
		if m.FSType != fstype("lustre") {
			return false, nil
		}
		return volume.SameLustre(m.Source, p.Lustre.MGS+":/"+p.Lustre.FSName), nil
	case p.Type == "none":
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
			return m.Source == p.Device, nil
		}
		return sameDevice(mc, deviceOf(m), p, noted)
	}
}

func sameDevice(mc Machine, have node.Device, p *volume.Plan, noted bool) (bool, error) {
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

// errForeign is the contract's text for a mount that is not ours (clientmountd
// 5.2, 5.3), with what to do about it.
func errForeign(m node.Mount, p *volume.Plan) error {
	const hint = "; it was not made for this ClientMount and is left alone: unmount it by hand, or correct mountPath"
	if p.Type == "lustre" {
		return fmt.Errorf("unexpected mount at path %s. Expected device %s:/%s of type lustre, found device %s type %s%s",
			p.Path, p.Lustre.MGS, p.Lustre.FSName, m.Source, m.FSType, hint)
	}
	return fmt.Errorf("unexpected mount at path %s. Device %s (%s) type %s, expected %s%s",
		p.Path, m.Source, deviceOf(m), m.FSType, p.Device, hint)
}
