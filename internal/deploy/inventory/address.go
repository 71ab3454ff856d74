package inventory

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Address is where compute nodes reach the API server.
type Address struct {
	Host string // a host name, or an IP address without brackets
	Port int
}

// String returns host:port, with brackets around an IPv6 address.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// Loopback reports whether the address refers to the host on which it is used.
func (a Address) Loopback() bool {
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && (ip.IsLoopback() || ip.IsUnspecified()) || a.Host == "localhost" || strings.HasSuffix(a.Host, ".localhost")
}

// addressHint is the hint for an address that compute nodes cannot use.
const addressHint = "give the address that compute nodes use with --kubernetes-service-host and --kubernetes-service-port"

// ParseServer returns the address in the server field of a kubeconfig: a URL, or a host with
// an optional port. The default port is 443. The daemons support only a host and a port, so
// a path is an error.
func ParseServer(server string) (Address, error) {
	text := server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Address{}, fmt.Errorf("API server address %q is not valid: %w", server, err)
	}
	switch {
	case u.Scheme != "https":
		return Address{}, fmt.Errorf("API server address %q does not use https, so the token would be sent unencrypted; %s", server, addressHint)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return Address{}, fmt.Errorf("API server address %q contains more than a host and a port; %s", server, addressHint)
	case strings.Trim(u.Path, "/") != "":
		return Address{}, fmt.Errorf("API server address %q has a path, which the daemons do not support (it may be that of a proxy); %s", server, addressHint)
	}
	port := u.Port()
	if port == "" {
		port = "443"
	}
	a, err := parse(u.Hostname(), port)
	if err != nil {
		return Address{}, fmt.Errorf("API server address %q: %w", server, err)
	}
	return a, nil
}

// ForComputes returns the address that compute nodes use: the one in the server field of a
// kubeconfig, in which host and port are replaced if they are not empty.
func ForComputes(server, host, port string) (Address, error) {
	if host != "" && port != "" {
		return parse(host, port)
	}
	base, err := ParseServer(server)
	if host != "" {
		// Only the port of the server is used, so a path does not matter.
		if u, uerr := url.Parse(server); err != nil && uerr == nil && u.Host != "" {
			u.Path, u.RawPath = "", ""
			base, err = ParseServer(u.String())
		}
	}
	if err != nil {
		return Address{}, err
	}
	if host == "" {
		host = base.Host
	}
	if port == "" {
		port = strconv.Itoa(base.Port)
	}
	return parse(host, port)
}

// hostName matches the names that resolvers accept, including underscores and a final dot.
var hostName = regexp.MustCompile(`^[A-Za-z0-9_]([-A-Za-z0-9_.]*[A-Za-z0-9_.])?$`)

func parse(host, port string) (Address, error) {
	if n := len(host); n > 2 && host[0] == '[' && host[n-1] == ']' {
		host = host[1 : n-1]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return Address{}, fmt.Errorf("port %q is not a number from 1 to 65535", port)
	}
	ip, err := netip.ParseAddr(host)
	switch {
	case err == nil && ip.Zone() != "":
		return Address{}, fmt.Errorf("address %q has a zone, which is valid on one host only", host)
	case err == nil:
	case strings.Contains(host, "://"):
		return Address{}, fmt.Errorf("host %q is a URL: give the host name or address alone, and the port separately", host)
	case strings.Contains(host, ":"):
		return Address{}, fmt.Errorf("host %q is not an address: give the port separately", host)
	case len(host) > maxName || !hostName.MatchString(host):
		return Address{}, fmt.Errorf("host %q is neither a host name nor an address", host)
	}
	return Address{Host: host, Port: int(n)}, nil
}
