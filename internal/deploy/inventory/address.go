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

// Address is where computes reach the API server.
type Address struct {
	Host string // a name, or an address without brackets
	Port int
}

// String returns host:port, IPv6 in brackets.
func (a Address) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(a.Port)) }

// Loopback reports whether the address means the host on which it is used.
func (a Address) Loopback() bool {
	ip, err := netip.ParseAddr(a.Host)
	return err == nil && (ip.IsLoopback() || ip.IsUnspecified()) || a.Host == "localhost" || strings.HasSuffix(a.Host, ".localhost")
}

// instead is what an administrator can do about an address.
const instead = "give the address that computes use by --kubernetes-service-host and --kubernetes-service-port"

// ParseServer returns the address in a kubeconfig's server, which is a URL, whose port is 443
// if it names none, or host and port alone. The daemons know only a host and a port, so a
// path is an error.
func ParseServer(server string) (Address, error) {
	text := server
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return Address{}, fmt.Errorf("API server address %q cannot be read: %w", server, err)
	}
	switch {
	case u.Scheme != "https":
		return Address{}, fmt.Errorf("API server address %q is not https: a token would be sent in the clear; %s", server, instead)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return Address{}, fmt.Errorf("API server address %q has more in it than a host and a port; %s", server, instead)
	case strings.Trim(u.Path, "/") != "":
		return Address{}, fmt.Errorf("API server address %q has a path, which the daemons do not know (is there a proxy in front of the cluster?); %s", server, instead)
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

// ForComputes returns the address that computes use: that of a kubeconfig's server, in
// which host and port replace its own if they are given.
func ForComputes(server, host, port string) (Address, error) {
	if host != "" && port != "" {
		return parse(host, port)
	}
	base, err := ParseServer(server)
	if host != "" {
		// Only the port of the server is used, and a path does not change it.
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

// hostName allows what resolvers allow, including underscores and a dot at the end.
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
		return Address{}, fmt.Errorf("address %q is for one interface of one host", host)
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
