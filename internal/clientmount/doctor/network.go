package doctor

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/api"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// The checks of this file are about the API server, one layer after the other. Only the first
// layer that does not work fails; those above it are skipped.

// untried returns why the connection was not tried, or nil.
func (f *facts) untried() []finding {
	switch {
	case f.offline:
		return skip("--offline")
	case f.credentials.err != nil || f.connection == nil:
		return skip("there are no usable credentials")
	}
	return nil
}

// contacted describes the machine that is contacted.
func contacted(c *kube.Connection) string {
	if c.Proxy != "" {
		return "the proxy " + c.Proxy
	}
	return "the API server"
}

func checkDNS(f *facts) []finding {
	if s := f.untried(); s != nil {
		return s
	}
	c := f.connection
	const next = "check /etc/resolv.conf and /etc/hosts, and that kubernetes.service_host is right; try getent hosts "
	switch {
	case c.Host == "":
		return []finding{fail("correct it in section [kubernetes]", "the address %s of the API server is not valid: %s", c.Server, cause(c.Err))}
	case c.IsAddress():
		return []finding{ok("%s has the address %s, no name", contacted(c), c.Host)}
	case c.Lookup != nil:
		return []finding{fail(next+c.Host, "%s: the name %s is not resolved: %s", contacted(c), c.Host, cause(c.Lookup))}
	case len(c.Addresses) == 0 && len(c.Attempts) == 0:
		return []finding{fail(next+c.Host, "%s: the name %s is not resolved within %v", contacted(c), c.Host, connectLimit)}
	}
	return []finding{ok("%s is %s", c.Host, some(c.Addresses, same))}
}

func (f *facts) resolved() bool {
	c := f.connection
	return c.Host != "" && c.Lookup == nil && (c.IsAddress() || len(c.Addresses) > 0 || len(c.Attempts) > 0)
}

func checkTCP(f *facts) []finding {
	if s := f.untried(); s != nil {
		return s
	}
	c := f.connection
	if !f.resolved() {
		return skip("the name is not resolved")
	}
	at := net.JoinHostPort(c.Host, c.Port)
	var refused []kube.Attempt
	for _, a := range c.Attempts {
		if a.Err != nil && !strings.Contains(a.Err.Error(), "operation was canceled") { // the other address was faster
			refused = append(refused, a)
		}
	}
	reason := func(a kube.Attempt) string { return a.Address + ": " + cause(a.Err) }
	if !c.Connected() {
		if len(refused) == 0 {
			return []finding{fail("check the route, and firewalls between this node and the address", "%s does not answer at %s within %v", contacted(c), at, connectLimit)}
		}
		next := "check the route, and firewalls between this node and the address"
		if errors.Is(refused[0].Err, unix.ECONNREFUSED) {
			next = "check that the API server runs, and that kubernetes.service_port is right"
		}
		return []finding{fail(next, "%s cannot be reached: %s", contacted(c), some(refused, reason))}
	}
	if len(refused) > 0 {
		return []finding{warn("correct the addresses of the name, or the route", "%s is connected, but not at each of its addresses: %s", at, some(refused, reason))}
	}
	return []finding{ok("%s is connected", at)}
}

func checkTLS(f *facts) []finding {
	if s := f.untried(); s != nil {
		return s
	}
	c := f.connection
	if !f.resolved() || !c.Connected() {
		return skip("there is no connection")
	}
	if !c.Secured {
		text, next := handshake(c)
		return []finding{fail(next, "%s", text)}
	}
	var list []finding
	if left := c.Expires.Sub(f.now); !c.Expires.IsZero() && left < certificateReserve {
		list = append(list, warn("renew the certificate of the API server", "the certificate of the API server expires in %v", left.Truncate(time.Minute)))
	}
	return only(list, ok("the certificate of the API server is trusted, and valid until %s", stamp(c.Expires)))
}

// handshake explains why TLS failed.
func handshake(c *kube.Connection) (text, next string) {
	err := c.Handshake
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var record tls.RecordHeaderError
	switch {
	case err == nil && c.Err != nil && c.Proxy != "":
		return fmt.Sprintf("the proxy does not connect to %s: %s", c.Server, cause(c.Err)), "check HTTPS_PROXY and NO_PROXY in the environment of the daemon"
	case err == nil:
		return fmt.Sprintf("the TLS handshake is not finished within %v", connectLimit), "check that the port is that of the API server, and the MTU of the route"
	case c.WrongAuthority():
		return "the certificate of the API server is not signed by the CA in kubernetes.cert_file: " + cause(err), "get the CA of this cluster with nnf-deploy credentials"
	case errors.As(err, &name):
		return "the certificate of the API server is for another name: " + cause(err), "set kubernetes.service_host to a name or address in the certificate"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate of the API server is not valid now: " + cause(err), "check the clock of this node; otherwise, renew the certificate"
	case errors.As(err, &record):
		return "the port does not speak TLS: " + cause(err), "check that kubernetes.service_port is the secure port of the API server"
	}
	return "the TLS handshake failed: " + cause(err), "check that the port is that of the API server"
}

// Differences between the clocks above which they are reported.
const (
	clockWarn = 5 * time.Second
	clockFail = time.Minute
)

func checkClock(f *facts) []finding {
	if s := f.untried(); s != nil {
		return s
	}
	c := f.connection
	if c.Status == 0 {
		return skip("the API server does not answer")
	}
	if c.Date.IsZero() {
		return skip("the response of the API server has no date")
	}
	// The date is rounded down to seconds, and was written at some time while we waited.
	difference, uncertain := c.Local.Add(-c.Waited/2).Sub(c.Date), time.Second+c.Waited/2
	size, word := difference.Abs(), "ahead of"
	if difference < 0 {
		word = "behind"
	}
	text := fmt.Sprintf("the clock of this node is %v %s that of the API server", size.Round(time.Second), word)
	const next = "check the time service of both: chronyc tracking"
	switch size -= uncertain; {
	case size > clockFail:
		return []finding{fail(next, "%s: tokens and certificates may be refused, and times in the status do not match", text)}
	case size > clockWarn:
		return []finding{warn(next, "%s", text)}
	}
	return []finding{ok("the difference to the API server is below %v", clockWarn)}
}

func checkAuthentication(f *facts) []finding {
	if s := f.untried(); s != nil {
		return s
	}
	c := f.connection
	switch {
	case !c.Secured:
		return skip("there is no connection")
	case c.Status == 0:
		return []finding{fail("check the load of the API server", "the API server does not answer: %s", cause(c.Err))}
	case c.Status == http.StatusUnauthorized:
		next := "get new credentials with nnf-deploy credentials; the daemon uses a new file without a restart"
		if renewal, own := f.ownToken(); own {
			next = renewal.Replace()
		}
		return []finding{fail(next, "the API server refuses the credentials: the token has expired, was issued by another cluster, or its account has been deleted")}
	case f.server == nil:
		return skip("the API server was not asked")
	case f.server.who.err != nil:
		return []finding{fail("check the API server", "%s", oneLine(f.server.who.err))}
	}
	who, claimed := f.server.who.value, f.credentials.value.client.Account()
	switch {
	case who == "":
		return []finding{ok("the API server accepts the credentials; it is too old to report their account")}
	case claimed != "" && who != claimed:
		return []finding{warn("check the authentication of the API server", "the API server considers the credentials of %s as those of %s", claimed, text.Clip(who, 200))}
	}
	return []finding{ok("the API server accepts %s", text.Clip(who, 200))}
}

// unanswered returns the reason why the API server was not asked, or nil.
func (f *facts) unanswered() []finding {
	switch s := f.untried(); {
	case s != nil:
		return s
	case f.server == nil:
		return skip("the API server does not accept the credentials, or does not answer")
	}
	return nil
}

func checkPermissions(f *facts) []finding {
	if s := f.unanswered(); s != nil {
		return s
	}
	if err := f.server.missing.err; err != nil {
		return []finding{fail("check the API server", "cannot be checked: %s", oneLine(err))}
	}
	if missing := f.server.missing.value; len(missing) > 0 {
		return []finding{fail("apply the manifest clientmountd-rbac.yaml of the package, which grants them",
			"the account lacks permissions: %s", some(missing, func(p api.Permission) string {
				if p.Namespace == "" {
					return p.String() + " in all namespaces"
				}
				return p.String() + " in namespace " + p.Namespace
			}))}
	}
	used, _ := api.Permissions(api.RulesClientmountd)
	return []finding{ok("the account has all %d permissions that the daemon needs", len(used))}
}

func checkVersions(f *facts) []finding {
	if s := f.unanswered(); s != nil {
		return s
	}
	var list []finding
	var served []string
	for i, g := range groups {
		v := f.server.versions[i]
		switch {
		case errors.Is(v.err, kube.ErrNotServed):
			list = append(list, fail("install a clientmountd and a Near-Node Flash release that match", "%s", oneLine(v.err)))
		case v.err != nil:
			list = append(list, fail("check the API server", "%s", oneLine(v.err)))
		default:
			served = append(served, g.name+"/"+v.value)
		}
	}
	return only(list, ok("%s", strings.Join(served, ", ")))
}

// cause returns the innermost text of a network error, which the text around it repeats.
func cause(err error) string {
	if err == nil {
		return "no answer"
	}
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &dns):
		return text.Clip(dns.Err, 500)
	case errors.As(err, &op) && op.Err != nil:
		return text.Clip(op.Err.Error(), 500)
	}
	return text.Clip(err.Error(), 500)
}
