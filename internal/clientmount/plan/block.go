package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// section returns the profile's section for an LVM-backed type.
func section(profile *nnf.StorageProfile, typ string) *nnf.Storage {
	switch typ {
	case dws.TypeXFS:
		return &profile.Data.XFS
	case dws.TypeGFS2:
		return &profile.Data.GFS2
	}
	return &profile.Data.Raw
}

// block plans a raw, xfs or gfs2 volume: activate the logical volume and mount it.
func (p *Plan) block(cm *dws.ClientMount, m *dws.Mount, profile *nnf.StorageProfile, o Options) error {
	s := section(profile, m.Type)
	if err := checkOverrides(s.VariableOverride); err != nil {
		return err
	}
	if err := p.blockNames(cm, m, s); err != nil {
		return err
	}
	vg, lv, fs := p.blockVariables(cm, m, s)
	fs, err := p.mountPath(m, fs, o)
	if err != nil {
		return err
	}

	b, f := &s.BlockDevice.Compute, &s.FileSystem.Compute
	up := sequence{steps: make([]Step, 0, 8)}
	up.hooks("preActivate", failPreActivate, lv, b.User.PreActivate)
	if !blank(b.VGChange.LockStart) {
		up.add(Step{Name: "waitVG", Kind: WaitVG, Fail: failActivate})
	}
	up.verb("lockStart", LockStart, failActivate, vg, b.VGChange.LockStart, "vgchange")
	up.verb("activate", Activate, failActivate, lv, b.LVChange.Activate, "lvchange")
	if !blank(b.LVChange.Activate) {
		up.add(Step{Name: "waitDevice", Kind: WaitDevice, Fail: failActivate})
	}
	up.hooks("postActivate", failPostActivate, lv, b.User.PostActivate)
	up.hooks("preMount", failPreMount, fs, f.User.PreMount)
	up.verb("mount", Mount, failMount, fs, f.Mount, p.mountProgram(o)...)
	up.permissions(m)
	up.hooks("postMount", failPostMount, fs, f.User.PostMount)

	down := sequence{steps: make([]Step, 0, 8)}
	down.hooks("preUnmount", failPreUnmount, fs, f.User.PreUnmount)
	down.unmount(p, fs, f.Mount, f.Unmount)
	down.hooks("postUnmount", failPostUnmount, fs, f.User.PostUnmount)
	down.hooks(hooksPreDeactivate, failPreDeactivate, lv, b.User.PreDeactivate)
	down.verb("deactivate", Deactivate, failDeactivate, lv, b.LVChange.Deactivate, "lvchange")
	down.verb("lockStop", LockStop, failDeactivate, vg, b.VGChange.LockStop, "vgchange")
	down.hooks(hooksPostDeactivate, failPostDeactivate, lv, b.User.PostDeactivate)

	p.Mount, p.Unmount = up.steps, down.steps
	if up.err != nil {
		return up.err
	}
	return down.err
}

// blockNames sets the names in the plan. The profile's overrides replace computed names;
// they change what the steps look for, not only the variables.
func (p *Plan) blockNames(cm *dws.ClientMount, m *dws.Mount, s *nnf.Storage) error {
	if m.Type == dws.TypeRaw {
		p.Target = TargetFile
	}
	if t, ok := s.VariableOverride["$FSTYPE"]; ok {
		p.FSType = t
		if !fsTypeWord(t) {
			return badOverride("$FSTYPE", t, fsTypeRule)
		}
	}
	if t, ok := s.VariableOverride["$MOUNT_TARGET"]; ok {
		p.Target = t
		if t != TargetFile && t != TargetDirectory {
			return badOverride("$MOUNT_TARGET", t, "expected file or directory")
		}
	}
	if err := p.volumeNames(cm, m, s); err != nil {
		return err
	}
	if m.Device.Type == dws.DeviceLVM {
		p.Rescan = true
		p.NVMe = slices.Clone(m.Device.LVM.NVMeInfo)
	}
	return nil
}

// blockVariables returns the variables of vgchange commands, of lvchange commands and
// block hooks, and of file system commands. The last ones lack $MOUNT_PATH.
func (p *Plan) blockVariables(cm *dws.ClientMount, m *dws.Mount, s *nnf.Storage) (vg, lv, fs *variables) {
	ref, i := m.Device.DeviceReference, m.Device.DeviceReference.Data
	index := strconv.Itoa(i)
	all := common(cm, m)
	// A compute node has no list of physical volumes, so the number of devices is 0.
	vgData := append(all[:len(all):len(all)],
		data("$VG_NAME", p.VG),
		data("$DEVICE_NUM", "0"), data("$DEVICE_NUM-1", "-1"), data("$DEVICE_NUM-2", "-2"),
		data("$DEVICE_LIST", ""), data("$DEVICE1", ""))
	lvData := append(vgData[:len(vgData):len(vgData)],
		data("$LV_NAME", p.LV), data("$LV_INDEX", index),
		data("$LV_SIZE", "0K"), data("$PERCENT_VG", "100%VG"))
	fsData := append(all[:len(all):len(all)],
		data("$DEVICE", p.Device), data("$FSTYPE", p.FSType), data("$MOUNT_TARGET", p.Target),
		data("$TEMP_DIR", "/mnt/temp/"+ref.ObjectReference.Name+"-"+index))
	if m.Type == dws.TypeGFS2 {
		fsData = append(fsData,
			data("$CLUSTER_NAME", ref.ObjectReference.Namespace),
			// The rabbit derives its name from data that a compute node does not
			// have; scripts expect this constant.
			data("$LOCK_SPACE", fmt.Sprintf("fs-%02d-66616b655f", i)),
			data("$PROTOCOL", "lock_dlm"))
	}
	o := s.VariableOverride
	return newVariables(vgData, o), newVariables(lvData, o), newVariables(fsData, o)
}

// VolumePrefix starts the names of the volumes that a rabbit creates.
const VolumePrefix = "lv"

// maxLVMName is the longest name that LVM and the device mapper accept (NAME_LEN and
// DM_NAME_LEN are 128 with the terminating zero).
const maxLVMName = 127

// volumeNames sets VG, LV, DMName and Device. They must equal the names that the rabbit
// created, so it is an error if a label that is part of the group's name is missing.
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
				return fatal("unable to find %s label: the name of the volume group is derived from it", key)
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

	p.LV = VolumePrefix
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
		return refused("device-mapper name", p.DMName, "at most 127 characters are allowed, and each dash counts twice")
	}
	p.Device = "/dev/mapper/" + p.DMName
	return nil
}

// DMName returns the device-mapper name of a logical volume: both names with
// every dash doubled, joined by one dash.
func DMName(vg, lv string) string {
	return strings.ReplaceAll(vg, "-", "--") + "-" + strings.ReplaceAll(lv, "-", "--")
}

const lvmNameRule = "the name of a volume group or logical volume has 1 to 127 characters of A-Z a-z 0-9 + _ . -, " +
	"does not start with -, is not . or .., and variables in it are not expanded"

// lvmName reports whether s is a valid name of a volume group or logical volume, see
// lvm(8), VALID NAMES.
func lvmName(s string) bool {
	return len(s) >= 1 && len(s) <= maxLVMName && s[0] != '-' && s != "." && s != ".." && text.Only(s, "+_.-")
}
