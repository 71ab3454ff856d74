package reference

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// statusError explains a text of status.error of a ClientMount.
type statusError struct {
	texts []string // as the daemon reports them, see codes
	what  string   // what happened
	job   string   // what it means for the job
	do    string   // what to do
}

const (
	waits = "waits"
	ends  = "ends"
)

func statusErrorTable() string {
	var rows [][]string
	for _, e := range statusErrors {
		rows = append(rows, []string{codes(e.texts), e.what, e.job, e.do})
	}
	return table([]string{"text", "what happened", "job", "what to do"}, rows)
}

// statusErrors explains what clientmountd writes to status.error, in the order of the
// steps.
var statusErrors = []statusError{
	{
		[]string{"unable to get file system information"},
		"The pinned storage profile could not be read: it does not exist, the account lacks a permission, or the API server serves no supported version.",
		waits,
		"Read the end of the text, which names the request, the account and the missing permission.",
	}, {
		[]string{"Expected pinned NnfStorageProfile, but it was not pinned"},
		"The label of the object names a profile that is not pinned.",
		ends,
		"Correct or update the program that created the ClientMount: its version is not compatible.",
	}, {
		[]string{"unable to find labels", "unable to find … label"},
		"The object lacks a label that names the profile or the volume group.",
		ends,
		"Correct or update the program that created the ClientMount: its version is not compatible.",
	}, {
		[]string{"… is shell syntax, but this command runs without a shell", "unclosed … in …", "backslash at the end of …", "control character in …", "… is empty after expansion",
			"the line contains a NUL character", "a line of … bytes is too long", "the profile has … lines"},
		"A command line of the storage profile cannot be used.",
		waits,
		"Correct the profile. If you need shell syntax, use a hook.",
	}, {
		[]string{"unknown variable … in …", "the profile's variableOverride …", "variables expand to more than …", "variables refer to each other in a cycle or too deeply", "variable … remains after … passes of expansion"},
		"A variable of the storage profile cannot be used.",
		waits,
		"Correct the profile.",
	}, {
		[]string{"unable to run block device PreActivate commands"},
		"A hook of the profile failed, or ran longer than `mount.hook_timeout`.",
		waits,
		"Read the command and its output, which follow. Correct the profile's `preActivate`, or the program that it runs.",
	}, {
		[]string{"unable to activate block device"},
		"The volume group or the logical volume did not appear (`timeout waiting for VG`, `could not find logical volume`), its device did not appear (`timeout waiting for device`), or `lvchange` or `vgchange` failed.",
		waits,
		"Check that the storage is attached: `nvme list`, `lvs`. For gfs2, check that `lvmlockd` and `dlm` run.",
	}, {
		[]string{"unable to run block device PostActivate commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `postActivate`.",
	}, {
		[]string{"unable to run file system PreMount commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `preMount` or `computePreMount`.",
	}, {
		[]string{"unable to mount file system"},
		"The mount target could not be created or is not safe, `mount` failed, or something else is mounted there (`unexpected mount at path …`). A target is not safe if it is below a directory that users can change, or behind a symbolic link that users could have made. A link that root made in a directory that only root can change (`/mnt` → `/var/mnt`) is followed.",
		waits,
		"Read the cause. Unmount a mount of another program manually: clientmountd does not touch it.",
	}, {
		[]string{"unable to set owner and group for file system"},
		"`chown` on the root of the mounted file system failed.",
		waits,
		"Read the cause.",
	}, {
		[]string{"unable to dump servers resource to file on clientmount path"},
		"The Lustre servers file could not be written. The daemon only logs this error.",
		"continues",
		"See the record `servers`.",
	}, {
		[]string{"unable to run file system PostMount commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `postMount` or `computePostMount`.",
	}, {
		[]string{"unable to run file system PreUnmount commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `preUnmount` or `computePreUnmount`.",
	}, {
		[]string{"unable to unmount file system"},
		"`umount` failed. If the mount is in use, the text names each holder: `in use by pid 4242 (vim, uid 1001, session-3.scope): cwd /mnt/…`, `mount … below it`, `loop device loop3 backed by …`, `swap file …`.",
		waits,
		"End those processes; clientmountd then retries and completes the unmount. `an earlier command still hangs`: the server or the device does not respond; see the record `stuck`.",
	}, {
		[]string{"unable to run file system PostUnmount commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `postUnmount` or `computePostUnmount`.",
	}, {
		[]string{"unable to run block device PreDeactivate commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `preDeactivate`.",
	}, {
		[]string{"unable to deactivate block device"},
		"`lvs`, `lvchange` or `vgchange --lock-stop` failed. If the device is in use, the text names the holders in all mount namespaces: `in use by pid 300 (pause, uid 0, containerd container 0123456789ab, mount namespace 4026532001): mounted at /host/x in another namespace`.",
		waits,
		"End the processes, or detach the devices, that the text names; clientmountd retries automatically. The record `diagnosis` lists the devices and the lockspaces.",
	}, {
		[]string{"unable to run block device PostDeactivate commands"},
		"A hook failed.",
		waits,
		"Correct the profile's `postDeactivate`.",
	}, {
		[]string{"spec.mounts¦… is refused: it is ¦outside mount.roots¦, …"},
		"The mount path is not below a directory in which this node allows mounts.",
		ends,
		"Correct the storage profile, or add the directory to `mount.roots`.",
	}, {
		[]string{"…: list the outer path first", "… whose mount target is a file", "… are the same path …"},
		"Two mount paths of the object conflict: one is below a later one, one is below a raw device, or both are the same.",
		ends,
		"Correct the program that created the ClientMount. It must list the outer path first.",
	}, {
		[]string{"mount path … is in use by ¦ClientMount …¦ with another volume (…)", "mount path … is below …, where ¦ClientMount …¦ has mounted …", "mount path … would hide …, where ¦ClientMount …¦ has mounted …"},
		"Another ClientMount of this node uses the path with another volume, or a path above or below it. Nothing was mounted.",
		waits,
		"Wait: clientmountd mounts when the other ClientMount is unmounted. Jobs that run at the same time need different mount paths.",
	}, {
		[]string{"record cannot be used¦: …"},
		"The record of this ClientMount in the runtime directory exists but cannot be read, or a newer clientmountd wrote it. The daemon mounts and unmounts nothing for the object, does not overwrite the file, and keeps the finalizer.",
		waits,
		"If a newer version wrote it, install that version again. If the file is damaged, unmount what the ClientMount has mounted (`findmnt`), then remove the file.",
	}, {
		[]string{"cannot save the record of …"},
		"The runtime directory is full or read-only. Nothing was mounted.",
		waits,
		"Free space in `/run`. Unmounting needs no space and continues.",
	}, {
		[]string{"… is hidden by device … at …"},
		"Another mount covers the mount of this ClientMount, so no command can reach it.",
		waits,
		"Unmount the covering mount manually: clientmountd does not touch it.",
	}, {
		[]string{"the ClientMount is for node …"},
		"The object is in the namespace of this node, but is for another node. The daemon did nothing.",
		ends,
		"Correct `spec.node` or the namespace.",
	}, {
		[]string{"… is refused: …", "… is missing", "… unsupported file system type …", "… has … entries, at most … are allowed", "spec.mounts is empty", "invalid desired state …", "… the link would point to itself …"},
		"A field of the object or a label is missing, invalid or dangerous. The daemon did nothing.",
		ends,
		"Correct the object. [security.md](../security.md#what-clientmountd-refuses) lists what is refused.",
	},
}

// reason explains an ErrorReason of the Copy Offload API.
type reason struct {
	v1   string // status in a response of version 1; "": a gRPC error with the code
	what string // what happened
	do   string // what to do
}

// reasonTable explains all reasons, in the order of their numbers.
func reasonTable() (string, error) {
	left := maps.Clone(reasons)
	var rows [][]string
	for _, number := range slices.Sorted(maps.Keys(pb2.ErrorReason_name)) {
		r := pb2.ErrorReason(number)
		if r == pb2.ErrorReason_ERROR_REASON_UNSPECIFIED {
			continue
		}
		text, ok := left[r]
		if !ok {
			return "", fmt.Errorf("the reason %s has no explanation: write one in packaging/generate/reference", r)
		}
		delete(left, r)
		v1 := "gRPC error"
		if text.v1 != "" {
			v1 = code(text.v1)
		}
		rows = append(rows, []string{code(r.String()), code(codeName(r)), v1, text.what, text.do})
	}
	if len(left) > 0 {
		return "", fmt.Errorf("the reasons %v do not exist", slices.Sorted(maps.Keys(left)))
	}
	return table([]string{"reason", "gRPC code", "version 1", "what happened", "what to do"}, rows), nil
}

// codeName returns the code of a reason as the gRPC specification writes it:
// NOT_FOUND for codes.NotFound.
func codeName(r pb2.ErrorReason) string {
	name := r.Code().String()
	if name == "Canceled" {
		return "CANCELLED"
	}
	var b strings.Builder
	for i, c := range name {
		if i > 0 && 'A' <= c && c <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteRune(c)
	}
	return strings.ToUpper(b.String())
}

var reasons = map[pb2.ErrorReason]reason{
	pb2.ErrorReason_INVALID_FIELD: {
		"INVALID", "A field of the request is invalid. The message and the metadata `field` name it.",
		"Correct the request.",
	},
	pb2.ErrorReason_WORKFLOW_NOT_FOUND: {
		"FAILED", "The workflow does not exist, or belongs to another user.",
		"Check `DW_WORKFLOW_NAME` and `DW_WORKFLOW_NAMESPACE` of the job.",
	},
	pb2.ErrorReason_WORKFLOW_STATE: {
		"FAILED", "The workflow is not in state `PreRun` with status `Completed`.",
		"Copy while the job runs.",
	},
	pb2.ErrorReason_MOUNT_NOT_FOUND: {
		"FAILED", "The source is not inside a mount of the workflow on this node, or the rabbit does not mount that storage.",
		"Check the path of the source, and `kubectl get clientmounts -A`.",
	},
	pb2.ErrorReason_MOUNT_NOT_READY: {
		"FAILED", "The storage is not mounted, or is being unmounted.",
		"Check the `status` of the ClientMount that the message names.",
	},
	pb2.ErrorReason_FILESYSTEM_NOT_SUPPORTED: {
		"INVALID", "The source is on xfs or raw storage, which can be mounted in one place only: on the compute node.",
		"Use `copy_out`, or use gfs2 or lustre.",
	},
	pb2.ErrorReason_DESTINATION_NOT_FOUND: {
		"FAILED", "The destination is not inside a `LustreFileSystem`.",
		"Check its `spec.mountRoot`.",
	},
	pb2.ErrorReason_PROFILE_NOT_FOUND: {
		"FAILED", "The profile does not exist in `nnf-system`, or not exactly one profile is the default.",
		"Check `kubectl get nnfdatamovementprofiles -n nnf-system`.",
	},
	pb2.ErrorReason_MOVEMENT_NOT_FOUND: {
		"NOT_FOUND", "The data movement or batch does not exist, or belongs to another user.",
		"Check the uid and the node: each node serves only its own data movements.",
	},
	pb2.ErrorReason_MOVEMENT_ACTIVE: {
		"ACTIVE", "Delete was called for a data movement that has not ended.",
		"Wait until it has ended, or cancel it first.",
	},
	pb2.ErrorReason_ACCESS_DENIED: {
		"", "The workflow belongs to the caller, but copying for it is not allowed: its user or group is 0, or the caller is not a member of its group.",
		"Read the message. Check `[access]`.",
	},
	pb2.ErrorReason_UNAVAILABLE: {
		"", "The API server does not respond, the rabbit of this node is not known yet, or the daemon is stopping.",
		"Retry. If it lasts, check the log of the daemon.",
	},
	pb2.ErrorReason_LIMIT_EXCEEDED: {
		"", "The caller exceeds a limit. The metadata `limit` names the setting.",
		"Send fewer requests at once, or raise the limit.",
	},
	pb2.ErrorReason_TIMEOUT: {
		"", "The deadline of the call has passed, or `limits.max_wait` for `Wait`.",
		"Repeat the request: the data movement continues.",
	},
	pb2.ErrorReason_CALLER_GONE: {
		"", "The caller has cancelled the call or disconnected.",
		"Nothing.",
	},
	pb2.ErrorReason_INTERNAL: {
		"", "The account lacks a permission, the API server rejects the object, or the daemon has a bug.",
		"Check the log of the daemon.",
	},
}
