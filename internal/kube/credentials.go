package kube

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net"
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

// inClusterDir is where Kubernetes puts a pod's credentials.
const inClusterDir = "/var/run/secrets/kubernetes.io/serviceaccount"

// restConfig applies the credentials rule (contract clientmountd.md 1.4):
// discovery when neither host nor port is given, else explicit mode.
func restConfig(o Options) (*rest.Config, error) {
	if o.Host == "" && o.Port == "" {
		return discoveredConfig(o)
	}
	return explicitConfig(o)
}

// explicitConfig runs the five checks of the contract in their order. The
// beginning of each text is fixed; what follows is for the administrator.
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

// checkAddress returns the host without brackets. People paste URLs and
// host:port here; that would become an address nobody can resolve.
func checkAddress(host, port string) (string, error) {
	if strings.Contains(host, "://") {
		return "", fmt.Errorf("host %q is a URL: give the host name or address alone, and the port separately", host)
	}
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	zoneless, _, _ := strings.Cut(host, "%")
	if strings.Contains(host, ":") && net.ParseIP(zoneless) == nil {
		return "", fmt.Errorf("host %q holds a port or is not an address: give the port separately", host)
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
			o.Log.Warn("a CA certificate has expired", "file", o.CertFile, "subject", c.Subject.String(), "expired", c.NotAfter)
		}
	}
	return nil
}

// parseCerts returns the certificates of a PEM bundle; none is an error.
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
		return nil, errors.New("no PEM certificate in it")
	}
	return certs, nil
}

// discoveredConfig looks where the contract says, in that order. A file that
// was named must work; the home file is a last resort.
func discoveredConfig(o Options) (*rest.Config, error) {
	if o.Kubeconfig != "" {
		return kubeconfig(o.Context, o.Kubeconfig)
	}
	if env := o.Environ("KUBECONFIG"); env != "" {
		return kubeconfig(o.Context, filepath.SplitList(env)...)
	}
	if host, port := o.Environ("KUBERNETES_SERVICE_HOST"), o.Environ("KUBERNETES_SERVICE_PORT"); host != "" && port != "" {
		if _, err := fileMode(inClusterDir + "/token"); err == nil {
			in := o
			in.Host, in.Port, in.Strict = host, port, false
			in.TokenFile, in.CertFile = inClusterDir+"/token", inClusterDir+"/ca.crt"
			return explicitConfig(in)
		}
	}
	if home := o.Environ("HOME"); home != "" {
		if path := filepath.Join(home, ".kube", "config"); exists(path) {
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
		return nil, fmt.Errorf("kubeconfig %s has no context %q, there is %s", names, context, strings.Join(slices.Sorted(maps.Keys(loaded.Contexts)), ", "))
	}
	cfg, err := clientcmd.NewDefaultClientConfig(*loaded, &clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s cannot be used: %w", names, err)
	}
	return cfg, nil
}

// CurrentContext is the name of the context that Dial uses with a kubeconfig;
// empty when there is none.
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
		// A single file that is missing is an error, one of many is not.
		rules = &clientcmd.ClientConfigLoadingRules{ExplicitPath: paths[0]}
	}
	loaded, err := rules.Load()
	if err != nil {
		return nil, names, fmt.Errorf("kubeconfig %s cannot be used: %w", names, err)
	}
	return loaded, names, nil
}
