package node

import (
	"errors"
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
