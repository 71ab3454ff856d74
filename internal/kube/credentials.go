package kube

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Options contain the address of the API server, the credentials and the limits. The zero
// value of each field has a sensible meaning.
type Options struct {
	// Host and Port of the API server. Both empty: kubeconfig discovery.
	Host, Port string
	// TokenFile and CertFile contain the bearer token and the CA bundle. Both are checked
	// for changes before each request, so that rotation needs no restart.
	TokenFile, CertFile string
	// Kubeconfig is a path; it is used when Host and Port are empty. Empty:
	// $KUBECONFIG, then in-cluster, then $HOME/.kube/config.
	Kubeconfig string
	// Context is the name of a context of the kubeconfig; empty: the current one.
	Context string
	// Service is the prefix of error texts; default "DWS client mount service".
	Service string
	// QPS and Burst limit our requests; default 20 and 30. A negative QPS means no limit.
	QPS   float32
	Burst int
	// UserAgent should contain program and version, for the server's metrics.
	UserAgent string
	// Timeout of each request that is not a watch; default 30 s.
	Timeout time.Duration
	// MinWatchTimeout is the minimum time limit of a watch. Each watch requests a random
	// limit between this and twice this; default 1 h.
	MinWatchTimeout time.Duration
	// Strict makes it an error, rather than a warning, if users other than the owner and
	// our group can read the token file.
	Strict bool
	// Renewal lets KeepToken renew the token. The zero value renews nothing.
	Renewal Renewal
	// Log receives warnings, and the log of client-go at debug level. Default: discard.
	Log *slog.Logger
	// Transport replaces the network in tests.
	Transport http.RoundTripper
	// WrapTransport and WrapConn wrap the transport and each new connection, so that
	// measurements can count requests and bytes. nil: not wrapped.
	WrapTransport func(http.RoundTripper) http.RoundTripper
	WrapConn      func(net.Conn) net.Conn
	// Environ returns environment variables; default os.Getenv.
	Environ func(string) string
}

const (
	defaultService         = "DWS client mount service"
	defaultQPS             = 20
	defaultBurst           = 30
	defaultTimeout         = 30 * time.Second
	defaultMinWatchTimeout = time.Hour
)

// withDefaults sets the defaults and checks the limits.
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
		return o, errors.New("the request timeout is negative")
	case o.MinWatchTimeout < time.Second:
		return o, errors.New("the watch timeout is below one second")
	case o.QPS > 0 && o.Burst < 1:
		return o, errors.New("the request burst is below one")
	}
	return o, nil
}

// inClusterDir is where Kubernetes puts a pod's credentials.
const inClusterDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// restConfig returns the credentials: by discovery if neither host nor port is set,
// otherwise from host, port, token file and certificate file, which are all required.
func restConfig(o Options) (*rest.Config, error) {
	if o.Host == "" && o.Port == "" {
		return discoveredConfig(o)
	}
	return explicitConfig(o)
}

// explicitConfig checks host and port, token and certificate, in this order. The start of
// each error text is fixed, because administrators search logs for the texts of the older
// daemon.
func explicitConfig(o Options) (*rest.Config, error) {
	if o.Host == "" || o.Port == "" {
		missing := "host"
		if o.Port == "" {
			missing = "port"
		}
		return nil, fmt.Errorf("kubernetes service host/port not defined: the %s is missing", missing)
	}
	host, err := checkAddress(o.Host, o.Port)
	if err != nil {
		return nil, fmt.Errorf("kubernetes service host/port not valid: %w", err)
	}
	if o.TokenFile == "" {
		return nil, fmt.Errorf("%s token not defined: give the path of the service token file", o.Service)
	}
	if err := checkTokenFile(o); err != nil {
		return nil, fmt.Errorf("%s token failed to read: %w", o.Service, err)
	}
	if o.CertFile == "" {
		return nil, fmt.Errorf("%s certificate file not defined: give the path of the cluster's CA certificate", o.Service)
	}
	if err := checkCertFile(o); err != nil {
		return nil, fmt.Errorf("%s certificate invalid: %w", o.Service, err)
	}
	return &rest.Config{
		Host:            "https://" + net.JoinHostPort(host, o.Port),
		BearerTokenFile: o.TokenFile,
		TLSClientConfig: rest.TLSClientConfig{CAFile: o.CertFile},
	}, nil
}

// checkAddress returns the host without brackets. A URL or host:port is a common mistake,
// which would become an address that cannot be resolved, so it is an error.
func checkAddress(host, port string) (string, error) {
	if strings.Contains(host, "://") {
		return "", fmt.Errorf("host %q is a URL: give the host name or address alone, and the port separately", host)
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	zoneless, _, _ := strings.Cut(host, "%")
	if strings.Contains(host, ":") && net.ParseIP(zoneless) == nil {
		return "", fmt.Errorf("host %q contains a port or is not an address: give the port separately", host)
	}
	if strings.ContainsAny(host, "/?#@[] \t\r\n") {
		return "", fmt.Errorf("host %q is neither a host name nor an address", host)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	return host, nil
}

func checkCertFile(o Options) error {
	data, err := readSmall(o.CertFile, maxCertFile)
	if err != nil {
		return err
	}
	if Encoded(data) {
		return fmt.Errorf("%s %s", o.CertFile, StillEncoded)
	}
	certs, err := parseCerts(data)
	if err != nil {
		return fmt.Errorf("%s: %w", o.CertFile, err)
	}
	for _, c := range certs {
		if time.Now().After(c.NotAfter) {
			o.Log.Warn("a CA certificate has expired, or the clock of this node is wrong", "file", o.CertFile, "subject", c.Subject.String(), "expired", c.NotAfter)
		}
	}
	return nil
}

// parseCerts returns the certificates of a PEM bundle. An empty bundle is an error.
func parseCerts(data []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("bad certificate: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("it contains no PEM certificate")
	}
	return certs, nil
}

// discoveredConfig uses the option, $KUBECONFIG, the credentials of a pod, or
// $HOME/.kube/config, in this order. The first one that is set must be usable.
func discoveredConfig(o Options) (*rest.Config, error) {
	if o.Kubeconfig != "" {
		return kubeconfig(o.Context, o.Kubeconfig)
	}
	if env := o.Environ("KUBECONFIG"); env != "" {
		return kubeconfig(o.Context, filepath.SplitList(env)...)
	}
	if host, port := o.Environ("KUBERNETES_SERVICE_HOST"), o.Environ("KUBERNETES_SERVICE_PORT"); host != "" && port != "" {
		if _, err := os.Stat(inClusterDir + "/token"); err == nil {
			in := o
			in.Host, in.Port, in.Strict = host, port, false
			in.TokenFile, in.CertFile = inClusterDir+"/token", inClusterDir+"/ca.crt"
			return explicitConfig(in)
		}
	}
	if home := o.Environ("HOME"); home != "" {
		path := filepath.Join(home, ".kube", "config")
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return kubeconfig(o.Context, path)
		}
	}
	return nil, fmt.Errorf("%w: set the kubernetes service host and port with token and certificate files, or give a kubeconfig", ErrNotConfigured)
}

func kubeconfig(context string, paths ...string) (*rest.Config, error) {
	loaded, names, err := load(paths)
	if err != nil {
		return nil, err
	}
	if _, ok := loaded.Contexts[context]; !ok && context != "" {
		return nil, fmt.Errorf("kubeconfig %s has no context %q, available contexts: %s", names, context, strings.Join(slices.Sorted(maps.Keys(loaded.Contexts)), ", "))
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*loaded, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s cannot be used: %w", names, err)
	}
	return cfg, nil
}

// CurrentContext returns the name of the context that Dial uses with a kubeconfig, or "".
func CurrentContext(o Options) string {
	if o.Context != "" {
		return o.Context
	}
	if o.Environ == nil {
		o.Environ = os.Getenv
	}
	paths := []string{o.Kubeconfig}
	if env := o.Environ("KUBECONFIG"); o.Kubeconfig == "" && env != "" {
		paths = filepath.SplitList(env)
	} else if o.Kubeconfig == "" {
		paths = []string{filepath.Join(o.Environ("HOME"), ".kube", "config")}
	}
	loaded, _, err := load(paths)
	if err != nil {
		return ""
	}
	return loaded.CurrentContext
}

func load(paths []string) (*clientcmdapi.Config, string, error) {
	names := strings.Join(paths, string(filepath.ListSeparator))
	rules := &clientcmd.ClientConfigLoadingRules{Precedence: paths}
	if len(paths) == 1 {
		// A missing file is an error if it is the only one.
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: paths[0]}
	}
	loaded, err := rules.Load()
	if err != nil {
		return nil, names, fmt.Errorf("kubeconfig %s cannot be used: %w", names, err)
	}
	return loaded, names, nil
}

// NodeName returns the name of this compute node, which is also the namespace to watch:
// explicit unchanged if set, otherwise the part of the host name before the first dot.
func NodeName(explicit string, hostname func() (string, error)) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	full, err := hostname()
	if err != nil {
		return "", fmt.Errorf("cannot read the host name: %w; set the node name explicitly", err)
	}
	short, _, _ := strings.Cut(full, ".")
	if short == "" {
		return "", errors.New("the host name is empty or starts with a dot; set the node name explicitly")
	}
	return short, nil
}

// Identity is a different set of credentials, and optionally a different address, for the
// same cluster.
type Identity struct {
	Token string // bearer token
	CA    []byte // PEM, replaces the CA of the kubeconfig
	Host  string // with Port: another address of the API server; empty: unchanged
	Port  string
}

// As returns a Client with that identity. It keeps no certificate, password or
// impersonation of the old one. Like Dial it sends nothing.
func (c *Client) As(id Identity) (*Client, error) {
	cfg := rest.AnonymousClientConfig(c.config)
	cfg.BearerToken = id.Token
	cfg.Insecure, cfg.CAFile, cfg.CAData = false, "", id.CA
	if id.Host != "" {
		host, err := checkAddress(id.Host, id.Port)
		if err != nil {
			return nil, err
		}
		cfg.Host, cfg.ServerName = "https://"+net.JoinHostPort(host, id.Port), ""
	}
	o := c.o
	o.CertFile = "" // it belongs to the old identity, and messages would show it
	return connect(o, cfg, "token")
}

// Authority returns the CA that this client trusts, as PEM, or nil if it uses the CAs of
// the system or verifies nothing.
func (c *Client) Authority() ([]byte, error) {
	switch {
	case c.config.Insecure:
		return nil, nil
	case len(c.config.CAData) > 0:
		return c.config.CAData, nil
	case c.config.CAFile != "":
		return readSmall(c.config.CAFile, maxCertFile)
	}
	return nil, nil
}
