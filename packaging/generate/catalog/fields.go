package catalog

import (
	"slices"
	"strings"
)

// Field is a field of journal records.
type Field struct{ Name, Meaning string }

// FieldsOf returns the fields of the records of a program, sorted by name.
func FieldsOf(program string) []Field {
	own := map[string][]Field{"clientmountd": clientmountFields, "nnf-dm": serverFields}[program]
	all := slices.Concat(own, daemonFields)
	slices.SortFunc(all, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// clientmountFields are the fields of clientmountd that daemonFields does not have.
var clientmountFields = []Field{
	{"API_SERVER", "address of the API server"},
	{"LEFT", "what could not be removed, or what still runs when the shutdown is forced"},
	{"LIMIT", "time limit of the shutdown, or of a command that an earlier daemon left running"},
	{"NAME", "name of an object that cannot be read"},
	{"CLIENTMOUNT", "name of the ClientMount"},
	{"WORKFLOW", "name of the workflow of the ClientMount"},
	{"MOUNT_PATH", "mount path"},
	{"STEP", "step: `preActivate[0]`, `activate`, `mount`, …"},
	{"PHASE", "hook that printed `OUTPUT`"},
	{"OUTPUT", "output of a hook, or messages that an LVM tool or a child process of the daemon printed"},
	{"DURATION_MS", "duration in milliseconds (`duration` in text)"},
	{"COMMANDS", "part of `DURATION_MS` that was spent in commands"},
	{"REQUESTS", "part of `DURATION_MS` that was spent in requests to the API server"},
	{"OVERHEAD", "part of `DURATION_MS` that was spent in the daemon itself"},
	{"TYPE", "type of the file system"},
	{"DEVICE", "device of the file system"},
	{"SEVERITY", "severity of a failure: Minor, Major or Fatal"},
	{"HOLDER", "what keeps a mount or a device busy, as in `status.error`; the `HOLDER_` fields are its parts"},
	{"HOLDER_PID", "process id of the holder; 0 if it is not a process"},
	{"HOLDER_UID", "user of the holder, if it is a process"},
	{"HOLDER_COMMAND", "program of the holder, if it is a process"},
	{"HOLDER_KIND", "how the path is held: `cwd`, `root`, `exe`, `fd`, `mmap`, `device`, `other namespace`; without a process `mount` (below the mount), `mounted` (the device, in the host's namespace), `loop`, `swap`, `stacked` (a block device on top)"},
	{"HOLDER_PATH", "path that is held"},
	{"HOLDER_UNIT", "systemd unit, container or batch job of the holder, as far as its cgroup shows it"},
	{"HOLDER_NAMESPACE", "number of the mount namespace of the holder (`lsns -t mnt`); empty if it is the host's"},
	{"REASON", "why a process that keeps a mount busy gets a signal, or none; why a stored token is not used"},
	{"PREDECESSOR", "deleted ClientMount whose mounts this one took over"},
	{"USED_BY", "ClientMount that still uses a mount that this one has released"},
	{"COMMAND", "command that hangs, or that printed `OUTPUT`"},
	{"PATHS", "mount paths of an orphan: a mount without its ClientMount"},
	{"CLIENTMOUNTS", "number of ClientMounts of the node"},
	{"DOWN", "how long the API server did not answer"},
	{"ATTEMPT", "number of the quick retry of an activation"},
	{"NAMESPACES", "NVMe namespaces that the node sees"},
	{"DLM", "output of `dlm_tool ls -n`"},
	{"CONTROLLER", "NVMe controller that was scanned"},
	{"INDEX", "position of the mount in `spec.mounts`"},
	{"PATH", "file or directory that the record is about"},
	{"PID", "process of a command that hangs, or that an earlier daemon left running"},
	{"SIGNAL", "signal that stops the daemon, or that it sent to a process that keeps a mount busy"},
	{"STATE", "exit status or signal of a command that could not be killed at first"},
	{"AFTER", "how long a command kept running after the daemon had tried to kill it"},
	{"PANIC", "text of an internal error"},
}

// serverFields are the fields of nnf-dm that daemonFields does not have.
var serverFields = []Field{
	{"API_SERVER", "address of the API server; `simulated` with `daemon.simulated`"},
	{"LEFT", "what still runs when the shutdown is forced"},
	{"LIMIT", "time limit of the shutdown"},
	{"NAME", "name of an object that cannot be read, or of a socket that is not used"},
	{"UID", "user of the caller"},
	{"PID", "process of the caller, which may have exited"},
	{"RPC", "gRPC method"},
	{"OBJECT", "object of the request: a workflow or a data movement"},
	{"REASON", "why the request was refused; why a stored token is not used"},
	{"WORKFLOW", "namespace and name of the workflow"},
	{"SOCKET", "path on which the daemon listens"},
	{"ACTIVATED", "whether the socket comes from systemd"},
	{"CONFIGURED", "path of the socket in the configuration, if the socket of systemd has another one"},
	{"COUNT", "number of suppressed records"},
	{"USERS", "number of users who caused the suppressed records; 0 if there were more than the daemon counts"},
	{"SIGNAL", "signal that stops the daemon"},
	{"IDLE", "how long a connection was idle that the daemon closed in favour of another user"},
	{"CALLS", "calls in progress on a connection that the daemon closed in favour of another user"},
}

// daemonFields are the fields of both daemons.
var daemonFields = []Field{
	{"ERROR", "cause"},
	{"HINT", "next action"},
	{"DELAY", "time until the next attempt to watch (level debug)"},
	{"EVENT", "kind of the record"},
	{"MESSAGE_ID", "stable id of the kind of the record"},
	{"VERSION", "version of the daemon"},
	{"NODE", "name of this compute node"},
	{"CONFIG", "configuration files that were read"},
	{"RUNTIME", "limits of the Go runtime in effect"},
	{"CHANGED", "settings whose new value is in effect after a reload"},
	{"NEEDS_RESTART", "settings that have changed but take effect only after a restart"},
	{"FILE", "file with credentials"},
	{"OTHER", "file with another token of the daemon, which it uses because the API server refused that in `FILE`"},
	{"ACCOUNT", "user name that the credentials claim"},
	{"EXPIRES", "when the token expires"},
	{"NEXT", "when the daemon renews the token, or tries again"},
	{"REQUESTED", "life of the token that the daemon requested"},
	{"GRANTED", "life of the token that the API server granted"},
	{"MODE", "permissions of `FILE`"},
	{"SUBJECT", "subject of a certificate"},
	{"EXPIRED", "when a certificate expired"},
	{"SERVER", "API server whose certificate is not verified"},
	{"RESOURCE", "resource that is watched"},
	{"KIND", "kind of an object that cannot be read"},
	{"NAMESPACE", "namespace of an object that cannot be read, or of the objects that are watched"},
	{"TEXT", "warning that the API server sent"},
	{"EXIT_CODE", "exit code of the daemon"},
	{"WATCHDOG", "time after which systemd kills a daemon that does not answer"},
	{"STACK", "stack trace of an internal error"},
}
