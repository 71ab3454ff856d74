package lab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"sync/atomic"
)

// Proxy stands between a daemon and the API server: HTTP/2 and TLS on both
// sides, with a certificate authority of its own. It counts what passes and
// breaks what it is told to.
type Proxy struct {
	Address string // host:port, stable for the proxy's life

	upstream  *http.Transport
	server    *http.Server
	cert      atomic.Pointer[tls.Certificate]
	requests  feed[*Request]
	listening sync.WaitGroup

	mu       sync.Mutex
	ca       []byte
	listener net.Listener
	conns    map[*conn]bool
	dropNew  bool          // accept and close at once
	stalled  chan struct{} // not nil while nothing may move
	rules    []*Rule
}

// StartProxy starts a proxy in front of an API server, whose certificate must
// be of upstreamCA (PEM).
func StartProxy(upstream string, upstreamCA []byte) (*Proxy, error) {
	target, err := url.Parse(upstream)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(upstreamCA) {
		return nil, errors.New("no certificate authority for the API server")
	}
	p := &Proxy{conns: map[*conn]bool{}}
	p.upstream = &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2: true, DisableCompression: true,
	}
	silent := log.New(io.Discard, "", 0) // broken connections are what this is for
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = target.Host },
		Transport:     p.upstream,
		FlushInterval: -1, // watch events must not wait
		ErrorLog:      silent,
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
	if err := p.listen("127.0.0.1:0"); err != nil {
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

// SwapCA gives the proxy a certificate of a new authority, which it returns as
// PEM, and breaks the connections that were made under the old one.
func (p *Proxy) SwapCA() (caPEM []byte, err error) {
	ca, cert, err := newAuthority()
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

// CA returns the present certificate authority as PEM.
func (p *Proxy) CA() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ca
}

// Host returns the address without the port.
func (p *Proxy) Host() string { h, _, _ := net.SplitHostPort(p.Address); return h }

// Port returns the port.
func (p *Proxy) Port() string { _, port, _ := net.SplitHostPort(p.Address); return port }

// Close ends the proxy and its connections.
func (p *Proxy) Close() error {
	p.HalfOpen(false)
	err := p.server.Close()
	p.Reset()
	p.listening.Wait()
	p.upstream.CloseIdleConnections()
	p.requests.end()
	return err
}
