package config

import (
	"math"
	"time"
)

// What the daemons have in common: how to reach the API server, what is logged,
// and the limits of the Go runtime.

// Kubernetes says how the API server is reached. With host and port both empty a
// kubeconfig is looked for.
type Kubernetes struct {
	ServiceHost, ServicePort string
	TokenFile, CertFile      string
	Kubeconfig               string
	QPS, Burst               int
	RequestTimeout           time.Duration
	WatchTimeout             time.Duration
}

// Log says what is logged and how.
type Log struct {
	Level  string // "debug", "info", "warn" or "error"
	Format string // "auto", "tint", "text", "json" or "journal"
}

// Runtime are the limits of the Go runtime.
type Runtime struct {
	GoMemLimit int64 // bytes; "off" is math.MaxInt64
	GoGC       int   // percent; "off" is -1
	GoMaxProcs int   // 0 leaves it to the Go runtime
}

func generalSettings(strict *bool) []Setting {
	return []Setting{{
		Key: "strict_credentials", Kind: Bool, Default: "false", Field: strict,
		Help: "Refuse to start when the token file can be read by others than its owner and the group of the daemon. Otherwise that is a warning.",
	}}
}

// kubernetesSettings are those of a daemon whose token and certificates are named
// by these environment variables, with its default limits for requests.
func kubernetesSettings(k *Kubernetes, tokenEnv, certEnv, qps, burst string) []Setting {
	return []Setting{
		{
			Key: "kubernetes.service_host", Flag: "kubernetes-service-host", Env: []Env{{Name: "KUBERNETES_SERVICE_HOST"}},
			Kind: String, Unit: "HOST", Field: &k.ServiceHost,
			Help: "Name or address of the API server.",
		}, {
			Key: "kubernetes.service_port", Flag: "kubernetes-service-port", Env: []Env{{Name: "KUBERNETES_SERVICE_PORT"}},
			Kind: Port, Field: &k.ServicePort,
			Help: "Port of the API server.",
		}, {
			Key: "kubernetes.token_file", Flag: "service-token-file", Env: []Env{{Name: tokenEnv}},
			Kind: String, Unit: "FILE", Field: &k.TokenFile,
			Help: "File with the bearer token of the service account. A token that changes on disk is picked up.",
		}, {
			Key: "kubernetes.cert_file", Flag: "service-cert-file", Env: []Env{{Name: certEnv}},
			Kind: String, Unit: "FILE", Field: &k.CertFile,
			Help: "File with the certificates (PEM) that vouch for the API server.",
		}, {
			Key: "kubernetes.kubeconfig", Flag: "kubeconfig",
			Kind: String, Unit: "FILE", Field: &k.Kubeconfig,
			Help: "A kubeconfig to use instead of host, port, token and certificates.",
		}, {
			Key: "kubernetes.qps", Flag: "kubernetes-qps",
			Kind: Int, Default: qps, Min: "1", Max: "1000", Unit: "NUMBER", Field: &k.QPS,
			Help: "Requests to the API server per second, on average.",
		}, {
			Key: "kubernetes.burst", Flag: "kubernetes-burst",
			Kind: Int, Default: burst, Min: "1", Max: "1000", Unit: "NUMBER", Field: &k.Burst,
			Help: "Requests to the API server that may go out at once.",
		}, {
			Key: "kubernetes.request_timeout", Kind: Duration, Default: "30s", Min: "1s", Max: "10m", Field: &k.RequestTimeout,
			Help: "How long one request may take. The watch is not a request in this sense.",
		}, {
			Key: "kubernetes.watch_timeout", Kind: Duration, Default: "1h", Min: "5m", Max: "24h", Field: &k.WatchTimeout,
			Help: "How long a watch lasts before it is renewed: between this and twice this, so that nodes do not renew all at once.",
		},
	}
}

func logSettings(l *Log) []Setting {
	return []Setting{
		{
			Key: "log.level", Flag: "log-level", Kind: Enum, Default: "info", Values: []string{"debug", "info", "warn", "error"}, Reload: true, Field: &l.Level,
			Help: "The least important record that is logged.",
		}, {
			Key: "log.format", Flag: "log-format", Kind: Enum, Default: "auto", Values: []string{"auto", "tint", "text", "json", "journal"}, Field: &l.Format,
			Help: "auto: the journal's own protocol under systemd, colours (tint) on a terminal, text otherwise.",
		},
	}
}

func runtimeSettings(r *Runtime, memory string) []Setting {
	return []Setting{
		{
			Key: "runtime.gomemlimit", Env: []Env{{Name: "GOMEMLIMIT", Lenient: true}},
			Kind: Size, Default: memory, Min: "1MiB", Words: map[string]int64{"off": math.MaxInt64}, Field: &r.GoMemLimit,
			Help: "Memory above which the garbage collector works harder. It is a target, not a hard limit.",
		}, {
			Key: "runtime.gogc", Env: []Env{{Name: "GOGC", Lenient: true}},
			Kind: Int, Default: "100", Min: "1", Max: "100000", Words: map[string]int64{"off": -1}, Field: &r.GoGC,
			Help: "Growth of the heap in percent before garbage is collected.",
		}, {
			Key: "runtime.gomaxprocs", Env: []Env{{Name: "GOMAXPROCS", Lenient: true}},
			Kind: Int, Default: "1", Min: "0", Max: "1024", Field: &r.GoMaxProcs,
			Help: "Processors that the daemon uses at once. One disturbs jobs least; 0 leaves it to the Go runtime.",
		},
	}
}

// zapFlags are the logging flags of earlier daemons.
func zapFlags() []Legacy {
	return []Legacy{
		{Flag: "zap-devel", Bool: true, Advice: "use --log-format"},
		{Flag: "zap-encoder", Advice: "use --log-format"},
		{Flag: "zap-log-level", Advice: "use --log-level"},
		{Flag: "zap-stacktrace-level", Advice: "stack traces are not logged"},
		{Flag: "zap-time-encoding", Advice: "use --log-format"},
	}
}
