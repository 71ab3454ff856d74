package plan

import (
	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/api/nnf"
)

// Fallback plans the removal of a volume whose profile is gone and of which no
// record was kept: umount, deactivate, stop the lock space. Whether the volume
// group was shared is not known then, so the caller tries both and takes what is
// mounted. Hooks are lost. It has no steps to mount.
func Fallback(cm *dws.ClientMount, index int, shared bool, o Options) (*Plan, error) {
	p, err := ForMount(cm, index, fallbackProfile(shared), o)
	if err != nil {
		return nil, err
	}
	p.Mount = []Step{}
	return p, nil
}

func fallbackProfile(shared bool) *nnf.StorageProfile {
	var s nnf.Storage
	s.BlockDevice.SharedVG = shared
	s.BlockDevice.Compute.LVChange.Deactivate = "--activate n $VG_NAME/$LV_NAME"
	s.FileSystem.Compute.Unmount = "$MOUNT_PATH"

	p := &nnf.StorageProfile{}
	p.Data.Pinned = true
	p.Data.Raw, p.Data.XFS, p.Data.GFS2 = s, s, s
	p.Data.GFS2.BlockDevice.Compute.VGChange.LockStop = "--lock-stop $VG_NAME"
	p.Data.Lustre.Client.CommandLines.Unmount = "$MOUNT_PATH"
	return p
}
