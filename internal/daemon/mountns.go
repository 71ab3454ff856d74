package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/moby/sys/mountinfo"
)

// InHostMountNamespace reports whether mounts that this process makes are seen
// by the host, which is so when it shares the mount namespace of process 1.
// Many sandbox settings of a unit (Protect…=, Private…=, ReadOnly…=) give the
// service a namespace of its own without saying so: mounting then succeeds and
// nobody sees the result. detail says what was compared, with a hint when the
// answer is no. root is put before /proc, for tests; "" is the real one.
//
// Reading the link /proc/1/ns/mnt would need CAP_SYS_PTRACE. The mount table of
// process 1 is readable without it, and the kernel never gives the same mount
// ID to mounts of two namespaces, so the ID of "/" decides (proc_pid_mountinfo(5)).
func InHostMountNamespace(root string) (same bool, detail string, err error) {
	ids := make([]int, 2)
	for i, process := range []string{"1", "self"} {
		path := filepath.Join(root, "/proc", process, "mountinfo")
		if ids[i], err = rootMountID(path); err != nil {
			return false, "", fmt.Errorf("cannot tell which mount namespace this is: %s: %w", path, err)
		}
	}
	detail = fmt.Sprintf("mount id of / is %d here and %d in process 1", ids[1], ids[0])
	if ids[0] != ids[1] {
		detail += "; look for Protect…=, Private…=, ReadOnly…= or MountFlags= in the unit and its drop-ins"
	}
	return ids[0] == ids[1], detail, nil
}

var errNoRootMount = errors.New("no mount at /")

// maxMountTable bounds what is read, in bytes: users may be able to add mounts.
const maxMountTable = 64 << 20

func rootMountID(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	mounts, err := mountinfo.GetMountsFromReader(io.LimitReader(f, maxMountTable), func(m *mountinfo.Info) (skip, stop bool) {
		return m.Mountpoint != "/", false
	})
	if err != nil {
		return 0, err
	}
	if len(mounts) == 0 {
		return 0, errNoRootMount
	}
	return mounts[len(mounts)-1].ID, nil // the topmost when / was mounted over
}
