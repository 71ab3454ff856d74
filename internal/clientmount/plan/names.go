package plan

import (
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// maxLVMName is what LVM and the device mapper take (NAME_LEN and DM_NAME_LEN
// are 128 with the terminating zero).
const maxLVMName = 127

// volumeNames sets VG, LV, DMName and Device. They must equal what the rabbit
// created (contract clientmountd.md 6.3), so nothing is guessed: without the
// labels that the group's name is made of there is no name.
func (p *Plan) volumeNames(cm *dws.ClientMount, m *dws.Mount, s *nnf.Storage) error {
	index := strconv.Itoa(m.Device.DeviceReference.Data)
	if vg, ok := s.VariableOverride["$VG_NAME"]; ok {
		if !lvmName(vg) {
			return badOverride("$VG_NAME", vg, lvmNameRule)
		}
		p.VG = vg
	} else {
		for _, key := range []string{api.LabelTargetOwnerUID, api.LabelTargetDirectiveIndex} {
			if cm.Label(key) == "" {
				return fatal("unable to find %s label: the volume group's name is made from it", key)
			}
		}
		p.VG = cm.Label(api.LabelTargetOwnerUID) + "_" + cm.Label(api.LabelTargetDirectiveIndex)
		if !s.BlockDevice.SharedVG {
			p.VG += "_" + index
		}
		if !lvmName(p.VG) {
			return refused("volume group name", p.VG, lvmNameRule)
		}
	}

	p.LV = "lv"
	if s.BlockDevice.SharedVG {
		p.LV += "-" + index
	}
	if lv, ok := s.VariableOverride["$LV_NAME"]; ok {
		if !lvmName(lv) {
			return badOverride("$LV_NAME", lv, lvmNameRule)
		}
		p.LV = lv
	}

	p.DMName = DMName(p.VG, p.LV)
	if len(p.DMName) > maxLVMName {
		return refused("device-mapper name", p.DMName, "at most 127 characters, dashes counted twice")
	}
	p.Device = "/dev/mapper/" + p.DMName
	return nil
}

// DMName returns the device-mapper name of a logical volume: both names with
// every dash doubled, joined by one dash.
func DMName(vg, lv string) string {
	return strings.ReplaceAll(vg, "-", "--") + "-" + strings.ReplaceAll(lv, "-", "--")
}

const lvmNameRule = "a name of volume group or logical volume has 1 to 127 of A-Z a-z 0-9 + _ . -, " +
	"does not start with -, is not . or .., and variables in it are not expanded"

// lvmName checks a name of a volume group or logical volume, see lvm(8), VALID
// NAMES.
func lvmName(s string) bool {
	return len(s) >= 1 && len(s) <= maxLVMName && s[0] != '-' && s != "." && s != ".." && only(s, "+_.-")
}
