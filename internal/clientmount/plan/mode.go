package plan

import (
	"path"
	"strconv"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
)

// mode replaces the steps on test systems (contract clientmountd.md 7.4). All
// checks have been made by then, so that a test system refuses what a real one
// would refuse.
func (p *Plan) mode(m *dws.Mount, o Options) error {
	switch o.Mode {
	case "", ModeReal:
		return nil
	case ModeMock:
		p.Mount, p.Unmount = []Step{}, []Step{}
		return nil
	case ModeKind:
	default:
		return fault("unknown mode %s: it is real, kind or mock", quote(o.Mode))
	}

	name := m.Device.DeviceReference.ObjectReference.Name
	if name == "" {
		return refused(entryField(p.Index, "device.deviceReference.objectReference.name"), name, objectNameRule)
	}
	base := o.MockPath
	if base == "" {
		base = "mnt/nnf"
	}
	p.LinkTo = path.Join("/", base, name+"-"+strconv.Itoa(m.Device.DeviceReference.Data))
	if p.LinkTo == p.Path {
		return fatal("%s: the link would point to itself: %s", entryField(p.Index, "mountPath"), quote(p.Path))
	}
	p.Mount = []Step{{Name: "link", Kind: Link, Fail: failMount}}
	p.Unmount = []Step{{Name: "unlink", Kind: Unlink, Fail: failUnmount}}
	return nil
}
