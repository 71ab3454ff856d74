package config

import (
	"slices"
	"time"
)

// Nnfdm is the configuration of nnf-dm, filled by Load through NnfdmTable.
type Nnfdm struct {
	StrictCredentials bool

	Kubernetes Kubernetes
	Node       struct {
		Name                string // "": the host's name up to its first dot
		Rabbit              string // "": looked up in the SystemConfiguration
		SystemConfiguration string // its name, in namespace default
	}
	Socket struct {
		Path  string
		Mode  string // octal permissions
		Group string // "": the group of the process
	}
	Access struct {
		RootMayAll      bool
		AllowRootCopies bool
		ListWorkflow    bool // list every movement of a workflow, not this node's alone
	}
	Options struct {
		Policy       string   // "list", "none" or "any"
		DCP, MPIRun  []string // further options that users may give
		LookupExpiry time.Duration
	}
	Limits struct {
		Connections, ConnectionsPerUser int
		ConnectionReserve               int // percent of Connections
		StreamsPerUser, WaitersPerUser  int
		CreatesPerSecond, CreateBurst   int
		MessageSize                     int64 // bytes
		MemoryPerUser, Memory           int64 // bytes
		APIShare                        int   // percent of Kubernetes.QPS and Kubernetes.Burst
		LogRecordsPerSecond             int
		LogRecordBurst                  int
		MaxWait                         time.Duration
		HandshakeTime                   time.Duration
		BatchSize                       int
		MovementsPerUser                int
		MovementBytesPerUser            int64 // bytes
	}
	Daemon struct {
		Simulated       bool
		IdleTimeout     time.Duration
		ShutdownTimeout time.Duration
	}
	Log     Log
	Runtime Runtime
}

var nnfdmSections = []Section{
	{"", "General"},
	{"kubernetes", "How to reach the Kubernetes API server. With host and port both empty a kubeconfig is looked for: --kubeconfig, $KUBECONFIG, the pod's own service account, $HOME/.kube/config."},
	{"node", "This compute node and its rabbit."},
	{"socket", "The socket of the Copy Offload API. Under socket activation the service manager's socket is used instead."},
	{"access", "Who may do what. Callers are known by the identity that the kernel gives for their connection."},
	{"options", "What users may pass on to dcp and mpirun, which the rabbit runs."},
	{"limits", "What one user may take, so that nobody else notices. Beyond a limit the answer is RESOURCE_EXHAUSTED, for that user alone."},
	{"daemon", "The life of the process."},
	{"log", "What is logged and how."},
	{"runtime", "Limits of the Go runtime. GOMEMLIMIT, GOGC and GOMAXPROCS in the environment win over this file."},
}

// NnfdmTable returns the settings of nnf-dm, bound to c.
func NnfdmTable(c *Nnfdm) *Table {
	return &Table{
		Program: "nnf-dm",
		Summary: "nnf-dm serves the Copy Offload API to the jobs of this compute node: it creates, follows, cancels and deletes data movements that the rabbit executes.",
		Synopsis: []string{
			"nnf-dm [flags]                          run the daemon",
			"nnf-dm config check [flags]             check the configuration, no network",
			"nnf-dm config dump [flags]              show every value and its origin",
			"nnf-dm config default                   print the commented default file",
			"nnf-dm install [flags]                  make a service of it, with these flags",
			"nnf-dm remove|start|stop|status         look after the service",
			"nnf-dm status -o json                   service, units and paths for programs",
			"nnf-dm version                          print the version",
		},
		File:     "/etc/nnf-dm/config.toml",
		Sections: nnfdmSections,
		Settings: slices.Concat(
			generalSettings(&c.StrictCredentials),
			kubernetesSettings(&c.Kubernetes, "NNF_DATA_MOVEMENT_SERVICE_TOKEN_FILE", "NNF_DATA_MOVEMENT_SERVICE_CERT_FILE", "50", "100"),
			nodeSettings(&c.Node.Name), rabbitSettings(c), socketSettings(c), accessSettings(c), limitSettings(c), nnfdmProcessSettings(c),
			// Memory grows with the connections, 20 KiB each: a limit below what those need
			// would keep the collector at work without a pause.
			logSettings(&c.Log), runtimeSettings(&c.Runtime, "128MiB"),
		),
		Legacy: zapFlags(),
	}
}
