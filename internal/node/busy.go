package node

import (
	"errors"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// IsBusy tells whether err says that a mount cannot be unmounted because somebody
// uses it: EBUSY, or umount(8) that ended with status 32 and said so. Commands run
// with LC_ALL=C, so its words are known.
func IsBusy(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) == 32 &&
		(strings.Contains(c.Stderr, "target is busy") || strings.Contains(c.Stderr, "device is busy"))
}

// IsInUse tells whether err says that a block device cannot be deactivated because
// something has it open: EBUSY, or LVM or dmsetup ended with an error and said so.
// Commands run with LC_ALL=C, so their words are known.
func IsInUse(err error) bool {
	if errors.Is(err, unix.EBUSY) {
		return true
	}
	c, ok := errors.AsType[*CommandError](err)
	return ok && exitStatus(c) > 0 && slices.ContainsFunc(inUseTexts, func(text string) bool { return strings.Contains(c.Stderr, text) })
}

// inUseTexts are what LVM prints after the name of the volume or group (lvchange, vgchange
// and dmsetup; lvm2 from 2.02 to 2.03).
var inUseTexts = []string{
	" in use.", // Logical volume VG/LV in use. Logical volume VG/LV contains a filesystem in use.
	" is used by another device",
	" open logical volume(s)", // Can't deactivate volume group "VG" with 1 open logical volume(s)
	"Device or resource busy", // device-mapper: remove ioctl on VG-LV (253:3) failed: ...
}
