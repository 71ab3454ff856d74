package daemon

import (
	"log/slog"
	"math"
	"slices"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// Settings has the settings that all daemons share: the API server, the log, and the
// limits of the Go runtime. Table binds them.
type Settings struct {
	Kubernetes kube.Options
	Node       string // name of this node; "": the host name up to its first dot
	RenewToken bool
	StateDir   string // state directory, for the renewed token
	Log        LogOptions
	Runtime    RuntimeOptions
}

// Renewal returns how the daemon with this name renews its token on a node.
func (s *Settings) Renewal(program, node string) kube.Renewal {
	if !s.RenewToken {
		return kube.Renewal{}
	}
	return kube.Renewal{Node: node, Daemon: program, Directory: s.StateDir}
}

// StateSetting returns the setting of the state directory of a daemon.
func (s *Settings) StateSetting(program string) config.Setting {
	return config.Setting{
		Key: "daemon.state_directory", Flag: "state-directory", Env: []config.Env{{Name: "STATE_DIRECTORY", Convert: config.FirstOfList}},
		Kind: config.String, Default: stateDirectory(program), Unit: "DIR", Check: config.AbsolutePath, Field: &s.StateDir,
		Help: "Directory for the token that the daemon has renewed (kubernetes.renew_token). It must survive a reboot. The daemon creates it if its parent exists.",
	}
}

// stateDirectory returns the default state directory of a daemon.
func stateDirectory(program string) string { return "/var/lib/" + program }

// Common returns s. It is a method of Configuration.
func (s *Settings) Common() *Settings { return s }

// Defaults has the values of shared settings that differ between the daemons.
type Defaults struct {
	TokenEnv, CertEnv    string // environment variables of kubernetes.token_file and cert_file
	QPS, Burst, MemLimit string // defaults of kubernetes.qps, kubernetes.burst and runtime.gomemlimit
	Status               string // subject of "status -o json", for the help
}

// Table returns the table of a daemon: its own sections and settings, and the settings
// that all daemons share, bound to s.
func (s *Settings) Table(own config.Table, d Defaults) *config.Table {
	if s.Log.Level == nil {
		s.Log.Level = new(slog.LevelVar)
	}
	own.Synopsis = synopsis(d.Status)
	if own.File == "" {
		own.File = "/etc/" + own.Program + "/config.toml"
	}
	own.Sections = slices.Concat([]config.Section{
		{Name: "", Help: "General"},
		{Name: "kubernetes", Help: "How to reach the Kubernetes API server. If host and port are both empty, the daemon looks for a kubeconfig: --kubeconfig, $KUBECONFIG, the service account of the pod, $HOME/.kube/config."},
	}, own.Sections, []config.Section{
		{Name: "log", Help: "What to log, and in which format."},
		{Name: "runtime", Help: "Limits of the Go runtime. GOMEMLIMIT, GOGC and GOMAXPROCS in the environment override this file."},
	})
	own.Settings = slices.Concat(s.kubernetes(d), own.Settings, s.logAndRuntime(d))
	own.Legacy = zapFlags
	return &own
}

func synopsis(status string) []config.Command {
	return []config.Command{
		{Flags: true, Meaning: "run the daemon"},
		{Words: "config check", Flags: true, Meaning: "check the configuration (no network)"},
		{Words: "config dump", Flags: true, Meaning: "show every value and its origin"},
		{Words: "config default", Meaning: "print the default file, with comments"},
		{Words: "install", Flags: true, Meaning: "install the service, with these flags"},
		{Words: "remove|start|stop|status", Meaning: "manage the service"},
		{Words: "status", Option: "-o json", Meaning: status + " for programs"},
		{Words: "version", Meaning: "print the version"},
	}
}

func (s *Settings) kubernetes(d Defaults) []config.Setting {
	k := &s.Kubernetes
	return []config.Setting{
		{
			Key: "strict_credentials", Kind: config.Bool, Default: "false", Field: &k.Strict,
			Help: "Refuse to start if users other than the owner and the group of the daemon can read the token file. If false, the daemon logs a warning.",
		}, {
			Key: "kubernetes.service_host", Flag: "kubernetes-service-host", Env: []config.Env{{Name: "KUBERNETES_SERVICE_HOST"}},
			Kind: config.String, Unit: "HOST", Field: &k.Host,
			Help: "Name or address of the API server.",
		}, {
			Key: "kubernetes.service_port", Flag: "kubernetes-service-port", Env: []config.Env{{Name: "KUBERNETES_SERVICE_PORT"}},
			Kind: config.Port, Field: &k.Port,
			Help: "Port of the API server.",
		}, {
			Key: "kubernetes.token_file", Flag: "service-token-file", Env: []config.Env{{Name: d.TokenEnv}},
			Kind: config.String, Unit: "FILE", Field: &k.TokenFile,
			Help: "File with the bearer token of the service account. The daemon picks up a new token without a restart.",
		}, {
			Key: "kubernetes.renew_token", Kind: config.Bool, Default: "true", Field: &s.RenewToken,
			Help: "Renew an expiring token of the account that the daemon has on this node only: at about 80 % of its life, the daemon requests the next one and stores it in daemon.state_directory. Of the stored token and the one in token_file, the daemon uses the one that was issued last. Tokens of other accounts are never renewed. If false, the daemon uses token_file only.",
		}, {
			Key: "kubernetes.cert_file", Flag: "service-cert-file", Env: []config.Env{{Name: d.CertEnv}},
			Kind: config.String, Unit: "FILE", Field: &k.CertFile,
			Help: "File with the CA certificates (PEM) of the API server.",
		}, {
			Key: "kubernetes.kubeconfig", Flag: "kubeconfig",
			Kind: config.String, Unit: "FILE", Field: &k.Kubeconfig,
			Help: "Kubeconfig to use if service_host and service_port are both empty; it is ignored otherwise.",
		}, {
			Key: "kubernetes.qps", Flag: "kubernetes-qps",
			Kind: config.Int, Default: d.QPS, Min: "1", Max: "1000", Unit: "NUMBER", Field: &k.QPS,
			Help: "Average number of requests to the API server per second.",
		}, {
			Key: "kubernetes.burst", Flag: "kubernetes-burst",
			Kind: config.Int, Default: d.Burst, Min: "1", Max: "1000", Unit: "NUMBER", Field: &k.Burst,
			Help: "Number of requests to the API server that the daemon may send in a burst.",
		}, {
			Key: "kubernetes.request_timeout", Kind: config.Duration, Default: "30s", Min: "1s", Max: "10m", Field: &k.Timeout,
			Help: "Time limit for one request. It does not apply to watches.",
		}, {
			Key: "kubernetes.watch_timeout", Kind: config.Duration, Default: "1h", Min: "5m", Max: "24h", Field: &k.MinWatchTimeout,
			Help: "How long a watch lasts before the daemon renews it: a random time between this value and twice this value, so that the nodes do not renew their watches at the same time.",
		}, {
			Key: "node.name", Flag: "node-name", Env: []config.Env{{Name: "NODE_NAME"}},
			Kind: config.String, Unit: "NAME", Check: config.NamespaceName, Field: &s.Node,
			Help: "Name of this compute node, which is also the namespace of its ClientMounts. Empty: the host's name up to its first dot.",
		},
	}
}

func (s *Settings) logAndRuntime(d Defaults) []config.Setting {
	l, r := &s.Log, &s.Runtime
	return []config.Setting{
		{
			Key: "log.level", Flag: "log-level", Kind: config.Enum, Default: "info", Values: []string{"debug", "info", "warn", "error"}, Reload: true, Field: l.Level,
			Help: "Lowest level of the records that the daemon logs.",
		}, {
			Key: "log.format", Flag: "log-format", Kind: config.Enum, Default: "auto", Values: logFormats, Field: &l.Format,
			Help: "auto: the native protocol of the journal under systemd, colours (tint) on a terminal, otherwise text.",
		}, {
			Key: "runtime.gomemlimit", Env: []config.Env{{Name: "GOMEMLIMIT", Lenient: true}},
			Kind: config.Size, Default: d.MemLimit, Min: "1MiB", Words: map[string]int64{"off": math.MaxInt64}, Field: &r.MemLimit,
			Help: "Memory above which the garbage collector runs more often. It is a target, not a hard limit.",
		}, {
			Key: "runtime.gogc", Env: []config.Env{{Name: "GOGC", Lenient: true}},
			Kind: config.Int, Default: "100", Min: "1", Max: "100000", Words: map[string]int64{"off": -1}, Field: &r.GOGC,
			Help: "Growth of the heap, in percent, that starts a garbage collection.",
		}, {
			Key: "runtime.gomaxprocs", Env: []config.Env{{Name: "GOMAXPROCS", Lenient: true}},
			Kind: config.Int, Default: "1", Min: "0", Max: "1024", Field: &r.MaxProcs,
			Help: "Number of processors that the daemon uses at the same time. 1 disturbs jobs least; with 0, the Go runtime decides.",
		},
	}
}

// zapFlags are the logging flags of earlier versions of the daemons.
var zapFlags = []config.Legacy{
	{Flag: "zap-devel", Bool: true, Advice: "use --log-format"},
	{Flag: "zap-encoder", Advice: "use --log-format"},
	{Flag: "zap-log-level", Advice: "use --log-level"},
	{Flag: "zap-stacktrace-level", Advice: "stack traces are not logged"},
	{Flag: "zap-time-encoding", Advice: "use --log-format"},
}
