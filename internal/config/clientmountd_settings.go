package config

import "github.com/compute-daemons/compute-daemons/internal/safepath"

// The settings of clientmountd, in the order of its file.

func nodeSettings(name *string) []Setting {
	return []Setting{
		{
			Key: "node.name", Flag: "node-name", Env: []Env{{Name: "NODE_NAME"}},
			Kind: String, Unit: "NAME", Check: namespaceName, Field: name,
			Help: "Name of this compute node, which is also the namespace of its ClientMounts. Empty: the host's name up to its first dot.",
		},
	}
}

func mountSettings(c *Clientmountd) []Setting {
	wait := []Env{{Name: "NNF_MAPPER_WAIT_TIMEOUT", Convert: waitSeconds, Lenient: true}}
	return []Setting{
		{
			Key: "mount.command_timeout", Flag: "command-timeout", Env: []Env{{Name: "NNF_COMMAND_TIMEOUT_SECONDS", Convert: wholeSeconds}},
			Kind: Duration, Default: "2m", Min: "1s", Max: "24h", Reload: true, Field: &c.Mount.CommandTimeout,
			Help: "How long one command (mount, lvchange, ...) may run before its whole process group is ended. The environment gives whole seconds.",
		}, {
			Key: "mount.hook_timeout", Flag: "hook-timeout",
			Kind: Duration, Default: "10m", Min: "1s", Max: "24h", Reload: true, Field: &c.Mount.HookTimeout,
			Help: "The same for the commands that a storage profile runs before and after mounting.",
		}, {
			Key: "mount.vg_wait", Env: wait, Kind: Duration, Default: "1s", Min: "0s", Max: "1h", Reload: true, Field: &c.Mount.VGWait,
			Help: "How long to wait for a volume group to be seen. The environment gives whole seconds.",
		}, {
			Key: "mount.device_wait", Env: wait, Kind: Duration, Default: "10s", Min: "0s", Max: "1h", Reload: true, Field: &c.Mount.DeviceWait,
			Help: "How long to wait for the device node of an activated volume. The environment gives whole seconds.",
		}, {
			Key: "mount.device_retries", Kind: Int, Default: "8", Min: "0", Max: "1000", Reload: true, Field: &c.Mount.DeviceRetries,
			Help: "Quick retries, one a second, while storage has not arrived yet; afterwards the failure is reported and retries slow down.",
		}, {
			Key: "mount.retry_max", Kind: Duration, Default: "30s", Min: "1s", Max: "1h", Reload: true, Field: &c.Mount.RetryMax,
			Help: "Longest pause between two retries of a mount that fails. With very many failing ClientMounts it is longer: five times their number, divided by kubernetes.qps, in seconds.",
		}, {
			Key: "mount.orphans", Flag: "orphans", Kind: Enum, Default: "report", Values: []string{"report", "unmount"}, Field: &c.Mount.Orphans,
			Help: "What to do with a mount of ours whose ClientMount is gone.",
		}, {
			Key: "mount.roots", Kind: Strings, Default: safepath.DefaultMountRoots, Check: mountRoots, Field: &c.Mount.Roots,
			Help: "Directories below which mounts are allowed; a ClientMount with another path is refused. A site whose storage profiles set $MOUNT_PATH elsewhere names its directories here. At least one, and none that belongs to the system.",
		}, {
			Key: "mount.options", Kind: Strings, Default: safepath.DefaultMountOptions, Check: mountOptions, Field: &c.Mount.Options,
			Help: "Options that every file system is mounted with, in front of those of the storage profile: an option of the profile such as suid wins. Raw block devices are excepted. Empty: none.",
		}, {
			Key: "mount.verify_interval", Kind: Duration, Default: "10h", Min: "0s", Max: "8760h", Check: neverOrMinute, Reload: true, Field: &c.Mount.VerifyInterval,
			Help: `How often to look again whether what should be mounted is. "0s": never.`,
		}, {
			Key: "mount.servers_file", Kind: Bool, Default: "false", Field: &c.Mount.ServersFile,
			Help: "Write .nnf-servers.json into the root of Lustre file systems.",
		}, {
			Key: "mount.mode", Flag: "mode",
			Env:  []Env{{Name: "NNF_TEST_ENVIRONMENT", Convert: always("mock"), Presence: true}, {Name: "ENVIRONMENT", Convert: onlyKind}},
			Kind: Enum, Default: "real", Values: []string{"real", "kind", "mock"}, Switches: []Switch{{"mock", "mock"}}, Field: &c.Mount.Mode,
			Help: "For tests only. kind: make a symbolic link instead of a mount. mock: only log. The environment asks for kind with ENVIRONMENT=kind, for mock by the presence of NNF_TEST_ENVIRONMENT.",
		}, {
			Key: "mount.mock_path", Env: []Env{{Name: "MOCK_FILE_SYSTEM_PATH"}}, Kind: String, Field: &c.Mount.MockPath,
			Help: "For tests only: the directory that stands in for the storage in modes kind and mock.",
		},
	}
}

func processSettings(c *Clientmountd) []Setting {
	return []Setting{
		{
			Key: "daemon.runtime_directory", Flag: "runtime-directory", Env: []Env{{Name: "RUNTIME_DIRECTORY", Convert: firstOfList}},
			Kind: String, Default: "/run/clientmountd", Unit: "DIR", Check: absoluteDirectory, Field: &c.Daemon.RuntimeDirectory,
			Help: "Where the record of each mount is kept. It must survive a restart of the daemon and vanish at boot.",
		}, {
			Key: "daemon.shutdown_timeout", Flag: "shutdown-timeout",
			Kind: Duration, Default: "60s", Min: "0s", Max: "1h", Reload: true, Field: &c.Daemon.ShutdownTimeout,
			Help: "How long a running step may go on after the daemon was asked to stop. Mounts are never touched then.",
		}, {
			Key: "daemon.mount_namespace", Flag: "mount-namespace", Kind: Enum, Default: "host", Values: []string{"host", "any"}, Field: &c.Daemon.MountNamespace,
			Help: "Where the daemon may live. host: only where process 1 lives, because elsewhere its mounts would be made and nobody would see them. any: no matter where, for containers that pass their mounts on to the host.",
		},
	}
}
