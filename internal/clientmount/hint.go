package clientmount

import (
	"errors"
	"os/exec"

	"github.com/compute-daemons/compute-daemons/internal/api/dws"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// hintFor says what the reader of the log can do about a failure. The most
// specific cause that is known decides.
func hintFor(e *dws.ResourceError, cause error) string {
	command := (*node.CommandError)(nil)
	conflict := (*conflictError)(nil)
	switch {
	case errors.As(cause, &conflict) && conflict.gone:
		return "what the deleted ClientMount left is still mounted: unmount it manually when its job is over, or set mount.orphans = \"unmount\""
	case errors.As(cause, &conflict):
		return "clientmountd mounts it as soon as the other ClientMount is unmounted; two jobs that are to run at once need different mount paths"
	case errors.Is(cause, errUnreadable):
		return "clientmountd does nothing for this ClientMount until the file is repaired or removed, because it may have mounted something; the error says how"
	case errors.Is(cause, plan.ErrOutsideRoots):
		return "if the storage profiles of this site set $MOUNT_PATH to a directory elsewhere, add it to mount.roots in a file in /etc/clientmountd/config.d " +
			"and restart clientmountd; else correct mountPath of the ClientMount"
	case e.Severity == dws.Fatal:
		return "the job cannot use this storage; correct the ClientMount or its storage profile, retrying will not help"
	case hangs(cause):
		return "nothing more is started for this ClientMount until the command ends: see what the device (dmesg, nvme list), the server or the lock manager (dlm_tool ls) is waiting for"
	case errors.Is(cause, exec.ErrNotFound):
		return "a program is not installed on this node, or not in the daemon's PATH: lvm2 has vgs, lvs, vgchange and lvchange, nvme-cli has nvme"
	case errors.Is(cause, errNoLV):
		return "LVM does not see the volume: check that the rabbit attached its NVMe namespaces to this node (nvme list) and that the volume group exists there"
	case node.IsBusy(cause):
		return "the mount goes away by itself as soon as the processes that the error names have ended; nothing is lost meanwhile"
	case node.IsInUse(cause):
		return "clientmountd deactivates the volume as soon as the holders that the error names have released it; no data is lost meanwhile"
	case errors.Is(cause, safepath.ErrSymlink):
		return "a symbolic link in the mount path is followed only if root made it, in a directory that only root can change (a sticky directory such as /tmp is not enough); let root make it there, or use the path that it points to"
	case errors.Is(cause, safepath.ErrUnsafe):
		return "every folder above the mount path must be a real one that only root can change; move the mount path or repair the folder"
	case errors.As(cause, &command) && command.TimedOut:
		return "the command took longer than mount.command_timeout (a hook: mount.hook_timeout) and was ended; raise the limit if it was only slow"
	case kube.IsNotFound(cause):
		return "the pinned storage profile of the workflow does not exist (kubectl get nnfstorageprofiles -A); it is asked for again by itself"
	case kube.IsForbidden(cause):
		return "the account of this daemon lacks a right: see the role nnf-clientmount and its binding"
	}
	return "it is tried again by itself; status.error of the ClientMount has the same text"
}
