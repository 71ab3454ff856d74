package lab

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy is a proxy between a daemon and the API server, with HTTP/2 and TLS on both
// sides and its own certificate authority. It logs requests and injects faults.
type Proxy struct {
	Address string // host:port, does not change

	ip        net.IP // used by no other program, so that the port stays free while the proxy is closed
	upstream  *http.Transport
	server    *http.Server
	cert      atomic.Pointer[tls.Certificate]
	requests  feed[*Request]
	listening sync.WaitGroup
	skew      atomic.Int64 // nanoseconds that are added to the date of responses

	mu       sync.Mutex
	ca       []byte
	listener net.Listener
	conns    map[*conn]bool
	dropNew  bool          // accept and close immediately
	stalled  chan struct{} // not nil while no data is forwarded
	rules    []*Rule
}

// StartProxy starts a proxy in front of an API server, whose certificate must be signed
// by upstreamCA (PEM).
func StartProxy(upstream string, upstreamCA []byte) (*Proxy, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(upstreamCA) {
		return nil, errors.New("no certificate authority for the API server")
	}
	var own [3]byte
	_, _ = rand.Read(own[:]) // never fails
	// An address of 127.0.0.0/8 other than 127.0.0.1 and the broadcast address.
	p := &Proxy{conns: map[*conn]bool{}, ip: net.IPv4(127, own[0]&0x7f|1, own[1], own[2]|1)}
	p.upstream = &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, DisableCompression: true,
	}
	silent := log.New(io.Discard, "", 0) // broken connections are intended
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host },
		Transport:     p.upstream,
		FlushInterval: -1, // forward watch events immediately
		ErrorLog:      silent,
		ModifyResponse: func(r *http.Response) error {
			if date, err := http.ParseTime(r.Header.Get("Date")); err == nil {
				r.Header.Set("Date", date.Add(time.Duration(p.skew.Load())).Format(http.TimeFormat))
			}
			return nil
		},
	}
	p.server = &http.Server{
		Handler:  p.handler(forward),
		ErrorLog: silent,
		TLSConfig: &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return p.cert.Load(), nil
		}},
	}
	if _, err := p.SwapCA(); err != nil {
		return nil, err
	}
	if err := p.listen(net.JoinHostPort(p.ip.String(), "0")); err != nil {
		return nil, err
	}
	return p, nil
}

func (p *Proxy) listen(address string) error {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.listener, p.Address = ln, ln.Addr().String()
	p.mu.Unlock()
	p.listening.Go(func() { _ = p.server.ServeTLS(&trackingListener{ln, p}, "", "") })
	return nil
}

// SwapCA creates a new certificate authority and certificate for the proxy, and breaks
// all connections. It returns the authority (PEM).
func (p *Proxy) SwapCA() (caPEM []byte, err error) {
	ca, cert, err := newAuthority(p.ip)
	if err != nil {
		return nil, err
	}
	p.cert.Store(cert)
	p.mu.Lock()
	p.ca = ca
	p.mu.Unlock()
	p.Reset()
	return ca, nil
}

// Skew makes the server appear to have a clock that differs from ours.
func (p *Proxy) Skew(d time.Duration) { p.skew.Store(int64(d)) }

// CA returns the current certificate authority (PEM).
func (p *Proxy) CA() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ca
}

// Close stops the proxy and closes its connections.
func (p *Proxy) Close() error {
	p.HalfOpen(false)
	err := p.server.Close()
	p.Reset()
	p.listening.Wait()
	p.upstream.CloseIdleConnections()
	p.requests.end()
	return err
}

// newAuthority creates a certificate authority, and a server certificate for the
// address that it signs.
func newAuthority(ip net.IP) (caPEM []byte, server *tls.Certificate, err error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, nil, err
	}
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	ca := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "lab-ca-" + serial.Text(36)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(240 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	leaf := &x509.Certificate{
		SerialNumber: new(big.Int).Add(serial, big.NewInt(1)), Subject: pkix.Name{CommonName: "lab-proxy"},
		NotBefore: ca.NotBefore, NotAfter: ca.NotAfter, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{ip},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return nil, nil, err
	}
	caPEM = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	return caPEM, &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// trackingListener records all connections, so that they can be broken.
type trackingListener struct {
	net.Listener
	proxy *Proxy
}

func (l *trackingListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked := &conn{Conn: c, proxy: l.proxy, closed: make(chan struct{})}
		l.proxy.mu.Lock()
		drop := l.proxy.dropNew
		if !drop {
			l.proxy.conns[tracked] = true
		}
		l.proxy.mu.Unlock()
		if !drop {
			return tracked, nil
		}
		c.Close()
	}
}

type conn struct {
	net.Conn
	proxy  *Proxy
	closed chan struct{}
}

// pass waits while the proxy is stalled.
func (c *conn) pass() {
	c.proxy.mu.Lock()
	stalled := c.proxy.stalled
	c.proxy.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-c.closed:
		}
	}
}

// Read holds data back while the proxy is stalled.
func (c *conn) Read(b []byte) (int, error) {
	c.pass()
	n, err := c.Conn.Read(b)
	c.pass()
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	c.pass()
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.proxy.mu.Lock()
	if c.proxy.conns[c] {
		delete(c.proxy.conns, c)
		close(c.closed)
	}
	c.proxy.mu.Unlock()
	return c.Conn.Close()
}

// Refuse closes the listener and all connections, so that connecting fails.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	ln := p.listener
	p.listener = nil
	p.mu.Unlock()
	if ln != nil {
		ln.Close()
	}
	p.Reset()
	p.listening.Wait()
}

// Accept listens on the same port again, after Refuse.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	open := p.listener != nil
	p.mu.Unlock()
	if open {
		return nil
	}
	return p.listen(p.Address)
}

// Down makes the proxy close all connections, new ones immediately after accepting
// them.
func (p *Proxy) Down(yes bool) {
	p.mu.Lock()
	p.dropNew = yes
	p.mu.Unlock()
	if yes {
		p.Reset()
	}
}

// Reset breaks all connections with a TCP reset. New connections are accepted.
func (p *Proxy) Reset() {
	p.mu.Lock()
	var list []*conn
	for c := range p.conns {
		list = append(list, c)
	}
	p.mu.Unlock()
	for _, c := range list {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

// HalfOpen keeps connections open and forwards nothing in either direction, as if a
// router had lost them. The kernel still acknowledges data of the daemon: losses below
// TCP cannot be simulated without privileges.
func (p *Proxy) HalfOpen(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case yes && p.stalled == nil:
		p.stalled = make(chan struct{})
	case !yes && p.stalled != nil:
		close(p.stalled)
		p.stalled = nil
	}
}

// Connections returns the number of open connections.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}
