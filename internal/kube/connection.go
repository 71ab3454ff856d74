package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync"
	"time"
)

// Connection is what one request to the API server has shown about each layer below the request.
type Connection struct {
	Server string // URL of the API server
	Proxy  string // host and port of the proxy that is used; "": none
	Host   string // name or address that is contacted: that of the API server or of the proxy
	Port   string

	Addresses []string  // of Host, if it is a name
	Lookup    error     // why the name was not resolved
	Attempts  []Attempt // connections that succeeded or failed, in this order
	Handshake error     // why TLS failed
	Secured   bool      // TLS succeeded
	Expires   time.Time // when the server's certificate expires

	Status int       // HTTP status of the response; 0: none
	Date   time.Time // time of the server in the response; zero: none
	Local  time.Time // time of this machine when the response arrived
	Waited time.Duration
	Err    error // why there is no response
}

// Attempt is one attempt to connect.
type Attempt struct {
	Address string
	Err     error
}

// Connected reports whether a TCP connection was opened.
func (c *Connection) Connected() bool {
	for _, a := range c.Attempts {
		if a.Err == nil {
			return true
		}
	}
	return false
}

// Connect sends one request over a new connection, in the way in which all requests are sent, and
// returns what happened until ctx ends. The response does not depend on permissions, except that
// the server may refuse the credentials.
func (c *Client) Connect(ctx context.Context) *Connection {
	conn := &Connection{Server: c.host}
	server, err := url.Parse(c.host)
	if err != nil {
		conn.Err = err
		return conn
	}
	if server.Scheme == "" { // a kubeconfig may have only host and port
		server = &url.URL{Scheme: "https", Host: c.host}
	}
	server.Path = "/version"
	contact := server
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, server.String(), nil)
	if err != nil {
		conn.Err = err
		return conn
	}
	if proxy, err := proxyOf(c.config, c.o.Environ)(req); err == nil && proxy != nil {
		contact, conn.Proxy = proxy, proxy.Host
	}
	conn.Host, conn.Port = contact.Hostname(), contact.Port()
	if conn.Port == "" {
		conn.Port = map[string]string{"http": "80", "https": "443"}[contact.Scheme]
	}
	var mu sync.Mutex // a dial that lost the race may still report
	ended := false
	note := func(f func()) {
		mu.Lock()
		defer mu.Unlock()
		if !ended {
			f()
		}
	}
	trace := &httptrace.ClientTrace{
		DNSDone: func(i httptrace.DNSDoneInfo) {
			note(func() {
				conn.Lookup = i.Err
				for _, a := range i.Addrs {
					conn.Addresses = append(conn.Addresses, a.String())
				}
			})
		},
		ConnectDone: func(_, address string, err error) {
			note(func() { conn.Attempts = append(conn.Attempts, Attempt{address, err}) })
		},
		TLSHandshakeDone: func(s tls.ConnectionState, err error) {
			note(func() {
				conn.Secured, conn.Handshake = err == nil, err
				conn.Expires = expiryOf(s.PeerCertificates)
			})
		},
	}
	began := time.Now()
	resp, err := c.rest.Client.Transport.RoundTrip(req.WithContext(httptrace.WithClientTrace(ctx, trace)))
	if err == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxVersion))
		resp.Body.Close()
	}
	mu.Lock()
	defer mu.Unlock()
	ended = true
	conn.Local, conn.Waited = time.Now(), time.Since(began)
	if err != nil {
		conn.Err = err
		return conn
	}
	conn.Status = resp.StatusCode
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		conn.Date = date
	}
	return conn
}

// maxVersion bounds the response to /version, in bytes.
const maxVersion = 64 << 10

func expiryOf(chain []*x509.Certificate) time.Time {
	if len(chain) == 0 {
		return time.Time{}
	}
	return chain[0].NotAfter
}

// IsAddress reports whether the contacted host is an address, so that no name is resolved.
func (c *Connection) IsAddress() bool { return net.ParseIP(c.Host) != nil }

// WrongAuthority reports whether TLS failed because the server's certificate is not trusted.
func (c *Connection) WrongAuthority() bool {
	return errors.As(c.Handshake, new(x509.UnknownAuthorityError))
}

// Expires returns when the token expires. It returns the zero time if it does not expire, or if the
// credentials are not a token.
func (c *Client) Expires() time.Time {
	token := c.config.BearerToken
	if c.token != nil {
		token, _ = c.token.current()
	}
	claims, _ := ClaimsOf(token)
	return claims.Expires
}

// Source returns where the credentials come from, for messages.
func (c *Client) Source() string {
	if c.token != nil {
		token, _ := c.token.current()
		if file := c.token.fileOf(token); file != "" {
			return "token file " + file
		}
	}
	return c.source
}

// Secrets returns the secrets among the credentials, so that they can be removed from texts.
func (c *Client) Secrets() (list []string) {
	list = []string{c.config.BearerToken, c.config.Password, string(c.config.KeyData)}
	if c.token != nil {
		list = append(list, c.token.secrets()...)
	}
	if c.config.KeyFile != "" {
		key, _ := readSmall(c.config.KeyFile, maxCertFile)
		list = append(list, string(key))
	}
	return list
}
