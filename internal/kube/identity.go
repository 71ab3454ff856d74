package kube

import (
	"net"

	"k8s.io/client-go/rest"
)

// Identity is another way to be known to the same API server, and to know it.
type Identity struct {
	Token string // bearer token
	CA    []byte // PEM, instead of what the kubeconfig trusts
	Host  string // with Port: another address of the API server; empty: the same
	Port  string
}

// As returns a Client with that identity and nothing of the old one: no
// certificate, password or impersonation. Like Dial it sends nothing.
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
	o.CertFile = "" // of the old identity; messages name it
	return connect(o, cfg, "token")
}

// Authority returns the CA that this client trusts, as PEM; nil when that is not
// one of its own but the system's, or nothing is verified.
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
