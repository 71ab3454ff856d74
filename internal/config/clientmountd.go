package config

import (
	"slices"
	"time"
)

// Clientmountd is the configuration of clientmountd, filled by Load through
// ClientmountdTable.
type Clientmountd struct {
	StrictCredentials bool

	Kubernetes Kubernetes
	Node       struct {
		Name string // "": the host's name up to its first dot
	}
	Mount struct {
		CommandTimeout time.Duration
		HookTimeout    time.Duration
		VGWait         time.Duration
		DeviceWait     time.Duration
		DeviceRetries  int
		RetryMax       time.Duration
		Orphans        string   // "report" or "unmount"
		Roots          []string // never empty
		Options        []string // of every file system; may be empty
		VerifyInterval time.Duration
		ServersFile    bool
		Mode           string // "real", "kind" or "mock"
		MockPath       string
	}
	Daemon struct {
		RuntimeDirectory string
		ShutdownTimeout  time.Duration
		MountNamespace   string // "host" or "any"
	}
	Log     Log
	Runtime Runtime
}

// clientmountdSections are in the order in which an administrator meets them.
var clientmountdSections = []Section{
	{"", "General"},
	{"kubernetes", "How to reach the Kubernetes API server. With host and port both empty a kubeconfig is looked for: --kubeconfig, $KUBECONFIG, the pod's own service account, $HOME/.kube/config."},
	{"node", "This compute node."},
	{"mount", "How mounts are made, checked and removed."},
	{"daemon", "The life of the process."},
	{"log", "What is logged and how."},
	{"runtime", "Limits of the Go runtime. GOMEMLIMIT, GOGC and GOMAXPROCS in the environment win over this file."},
}

// ClientmountdTable returns the settings of clientmountd, bound to c.
func ClientmountdTable(c *Clientmountd) *Table {
	return &Table{
		Program: "clientmountd",
		Summary: "clientmountd makes the ClientMounts of this compute node true: it activates the storage, mounts, unmounts and reports.",
		Synopsis: []string{
			"clientmountd [flags]                    run the daemon",
			"clientmountd config check [flags]       check the configuration, no network",
			"clientmountd config dump [flags]        show every value and its origin",
			"clientmountd config default             print the commented default file",
			"clientmountd install [flags]            make a service of it, with these flags",
			"clientmountd remove|start|stop|status   look after the service",
			"clientmountd status -o json             service, mounts and paths for programs",
			"clientmountd version                    print the version",
		},
		File:     "/etc/clientmountd/config.toml",
		Sections: clientmountdSections,
		Settings: slices.Concat(
			generalSettings(&c.StrictCredentials),
			kubernetesSettings(&c.Kubernetes, "DWS_CLIENT_MOUNT_SERVICE_TOKEN_FILE", "DWS_CLIENT_MOUNT_SERVICE_CERT_FILE", "20", "40"),
			nodeSettings(&c.Node.Name), mountSettings(c), processSettings(c),
			logSettings(&c.Log), runtimeSettings(&c.Runtime, "20MiB"),
		),
		Legacy: zapFlags(),
		Notices: []Notice{{
			"RABBIT_NODE", "this is the daemon of a compute node; it never runs the commands for Rabbit nodes, whatever this says; unset it",
		}},
	}
}
