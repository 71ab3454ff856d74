package kube

import (
	"errors"
	"log/slog"
	"net/http"
	"os"
	"time"
)

// Options says which API server to reach, as whom, and how patiently. The zero
// value of each field has a sensible meaning.
type Options struct {
	// Host and Port of the API server. Both empty: kubeconfig discovery.
	Host, Port string
	// TokenFile and CertFile hold the bearer token and the CA bundle. Both
	// are looked at again for each request, so that rotation needs no restart.
	TokenFile, CertFile string
	// Kubeconfig is a path; it is used when Host and Port are empty. Empty:
	// $KUBECONFIG, then in-cluster, then $HOME/.kube/config.
	Kubeconfig string
	// Context names one of the kubeconfig; empty: its current one.
	Context string
	// Service is the prefix of error texts (contract clientmountd.md 1.4);
	// default "DWS client mount service".
	Service string
	// QPS and Burst limit our own requests; default 20 and 30. A negative
	// QPS switches the limit off.
	QPS   float32
	Burst int
	// UserAgent should name one daemon and version, for the server's metrics.
	UserAgent string
	// Timeout of each request that is not a watch; default 30 s.
	Timeout time.Duration
	// MinWatchTimeout is asked from the server for each watch, which it ends
	// after a random time between this and twice this; default 1 h.
	MinWatchTimeout time.Duration
	// Strict turns a token file that others than its owner and our group can
	// read from a warning into an error.
	Strict bool
	// Log receives warnings, and what client-go has to say at debug level.
	// Default: discard.
	Log *slog.Logger
	// Transport replaces the network; for tests.
	Transport http.RoundTripper
	// Environ looks up environment variables; default os.Getenv.
	Environ func(string) string
}

const (
	defaultService         = "DWS client mount service"
	defaultQPS             = 20
	defaultBurst           = 30
	defaultTimeout         = 30 * time.Second
	defaultMinWatchTimeout = time.Hour
)

// withDefaults fills in what is unset and refuses what cannot be meant.
func (o Options) withDefaults() (Options, error) {
	if o.Service == "" {
		o.Service = defaultService
	}
	if o.QPS == 0 {
		o.QPS = defaultQPS
	}
	if o.Burst == 0 {
		o.Burst = defaultBurst
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.MinWatchTimeout == 0 {
		o.MinWatchTimeout = defaultMinWatchTimeout
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Environ == nil {
		o.Environ = os.Getenv
	}
	switch {
	case o.Timeout < 0:
		return o, errors.New("the request time-out is negative")
	case o.MinWatchTimeout < time.Second:
		return o, errors.New("the watch time-out is below one second")
	case o.QPS > 0 && o.Burst < 1:
		return o, errors.New("the request burst is below one")
	}
	return o, nil
}
