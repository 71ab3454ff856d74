package config

import "math"

// The settings of clientmountd, in the order of its file.

func generalSettings(c *Clientmountd) []Setting {
	return []Setting{{
		Key: "strict_credentials", Kind: Bool, Default: "false", Field: &c.StrictCredentials,
		Help: "Refuse to start when the token file can be read by others than its owner. Otherwise that is a warning.",
	}}
}

func kubernetesSettings(c *Clientmountd) []Setting {
	return []Setting{
		{
			Key: "kubernetes.service_host", Flag: "kubernetes-service-host", Env: []Env{{Name: "KUBERNETES_SERVICE_HOST"}},
			Kind: String, Unit: "HOST", Field: &c.Kubernetes.ServiceHost,
			Help: "Name or address of the API server.",
		}, {
			Key: "kubernetes.service_port", Flag: "kubernetes-service-port", Env: []Env{{Name: "KUBERNETES_SERVICE_PORT"}},
			Kind: Port, Field: &c.Kubernetes.ServicePort,
			Help: "Port of the API server.",
		}, {
			Key: "kubernetes.token_file", Flag: "service-token-file", Env: []Env{{Name: "DWS_CLIENT_MOUNT_SERVICE_TOKEN_FILE"}},
			Kind: String, Unit: "FILE", Field: &c.Kubernetes.TokenFile,
			Help: "File with the bearer token of the service account. A token that changes on disk is picked up.",
		}, {
			Key: "kubernetes.cert_file", Flag: "service-cert-file", Env: []Env{{Name: "DWS_CLIENT_MOUNT_SERVICE_CERT_FILE"}},
			Kind: String, Unit: "FILE", Field: &c.Kubernetes.CertFile,
			Help: "File with the certificates (PEM) that vouch for the API server.",
		}, {
			Key: "kubernetes.kubeconfig", Flag: "kubeconfig",
			Kind: String, Unit: "FILE", Field: &c.Kubernetes.Kubeconfig,
			Help: "A kubeconfig to use instead of host, port, token and certificates.",
		}, {
			Key: "kubernetes.qps", Flag: "kubernetes-qps",
			Kind: Int, Default: "20", Min: "1", Max: "1000", Unit: "NUMBER", Field: &c.Kubernetes.QPS,
			Help: "Requests to the API server per second, on average.",
		}, {
			Key: "kubernetes.burst", Flag: "kubernetes-burst",
			Kind: Int, Default: "40", Min: "1", Max: "1000", Unit: "NUMBER", Field: &c.Kubernetes.Burst,
			Help: "Requests to the API server that may go out at once.",
		}, {
			Key: "kubernetes.request_timeout", Kind: Duration, Default: "30s", Min: "1s", Max: "10m", Field: &c.Kubernetes.RequestTimeout,
			Help: "How long one request may take. The watch is not a request in this sense.",
		}, {
			Key: "kubernetes.watch_timeout", Kind: Duration, Default: "1h", Min: "5m", Max: "24h", Field: &c.Kubernetes.WatchTimeout,
			Help: "How long a watch lasts before it is renewed: between this and twice this, so that nodes do not renew all at once.",
		}, {
			Key: "node.name", Flag: "node-name", Env: []Env{{Name: "NODE_NAME"}},
			Kind: String, Unit: "NAME", Check: namespaceName, Field: &c.Node.Name,
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
			Help: "Longest pause between two retries of a mount that fails.",
		}, {
			Key: "mount.orphans", Flag: "orphans", Kind: Enum, Default: "report", Values: []string{"report", "unmount"}, Field: &c.Mount.Orphans,
			Help: "What to do with a mount of ours whose ClientMount is gone.",
		}, {
			Key: "mount.roots", Kind: Strings, Check: absolutePaths, Field: &c.Mount.Roots,
			Help: "Directories below which mounts are allowed. Empty: anywhere except system directories.",
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
			Key: "log.level", Flag: "log-level", Kind: Enum, Default: "info", Values: []string{"debug", "info", "warn", "error"}, Reload: true, Field: &c.Log.Level,
			Help: "The least important record that is logged.",
		}, {
			Key: "log.format", Flag: "log-format", Kind: Enum, Default: "auto", Values: []string{"auto", "tint", "text", "json", "journal"}, Field: &c.Log.Format,
			Help: "auto: the journal's own protocol under systemd, colours (tint) on a terminal, text otherwise.",
		}, {
			Key: "runtime.gomemlimit", Env: []Env{{Name: "GOMEMLIMIT", Lenient: true}},
			Kind: Size, Default: "20MiB", Min: "1MiB", Words: map[string]int64{"off": math.MaxInt64}, Field: &c.Runtime.GoMemLimit,
			Help: "Memory above which the garbage collector works harder. It is a target, not a hard limit.",
		}, {
			Key: "runtime.gogc", Env: []Env{{Name: "GOGC", Lenient: true}},
			Kind: Int, Default: "100", Min: "1", Max: "100000", Words: map[string]int64{"off": -1}, Field: &c.Runtime.GoGC,
			Help: "Growth of the heap in percent before garbage is collected.",
		}, {
			Key: "runtime.gomaxprocs", Env: []Env{{Name: "GOMAXPROCS", Lenient: true}},
			Kind: Int, Default: "1", Min: "0", Max: "1024", Field: &c.Runtime.GoMaxProcs,
			Help: "Processors that the daemon uses at once. One disturbs jobs least; 0 leaves it to the Go runtime.",
		},
	}
}
