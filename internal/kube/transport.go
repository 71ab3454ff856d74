package kube

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/net/http/httpproxy"
	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
)

// maxAnswer bounds a response that is not a watch, in bytes after decompression.
const maxAnswer = 32 << 20

var errAnswerTooBig = fmt.Errorf("the response of the API server is larger than %d MiB", maxAnswer>>20)

// caTransport sends requests. It checks the CA file for changes (one stat) before each
// request, and opens new connections after a change. A running watch keeps its connection.
type caTransport struct {
	make   func(*tls.Config) *http.Transport
	tls    *tls.Config
	caFile string // empty: the CA does not come from a file
	log    *slog.Logger
	pause  func(context.Context, time.Duration)

	mu   sync.Mutex
	now  *http.Transport
	seen stamp
	bad  string
}

// newTransport returns the round tripper for cfg with TLS 1.2 or later, client
// certificates that are read again for each connection, and our dialler. It uses only the
// parts of client-go that hold no connection, because client-go's own transport polls
// client certificates, reloads the CA every five minutes and sends pings.
func newTransport(cfg *rest.Config, o Options) (http.RoundTripper, error) {
	tc, err := cfg.TransportConfig()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := transport.TLSConfigFor(tc)
	if err != nil {
		return nil, err
	}
	if tlsConfig == nil {
		tlsConfig = &tls.Config{}
	}
	tlsConfig.MinVersion = max(tlsConfig.MinVersion, tls.VersionTLS12)
	// The transport negotiates HTTP/2 itself; a preset list would prevent that.
	tlsConfig.NextProtos = nil
	if cfg.CertFile != "" && cfg.KeyFile != "" && len(cfg.CertData) == 0 {
		tlsConfig.Certificates = nil
		tlsConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("client certificate: %w", err)
			}
			return &pair, nil
		}
	}
	ping, pong := pingTimes(o.Environ)
	proxy := proxyOf(cfg, o.Environ)
	t := &caTransport{tls: tlsConfig, log: o.Log, pause: Pause, make: func(c *tls.Config) *http.Transport {
		return &http.Transport{
			Proxy:               proxy,
			DialContext:         o.dial,
			TLSClientConfig:     c,
			TLSHandshakeTimeout: dialTimeout,
			ForceAttemptHTTP2:   true,
			IdleConnTimeout:     90 * time.Second,
			MaxIdleConnsPerHost: 2,
			DisableCompression:  cfg.DisableCompression,
			HTTP2:               &http.HTTP2Config{SendPingTimeout: ping, PingTimeout: pong},
		}
	}}
	if cfg.CAFile != "" && len(cfg.CAData) == 0 && !cfg.Insecure {
		t.caFile = cfg.CAFile
		t.seen, _ = stampOf(cfg.CAFile)
	}
	t.now = t.make(tlsConfig)
	return transport.HTTPWrappersForConfig(tc, t)
}

// proxyOf returns the function that chooses the proxy of a request: that of the kubeconfig, or that
// in the environment of the options. Like http.ProxyFromEnvironment, it reads the environment once.
func proxyOf(cfg *rest.Config, environ func(string) string) func(*http.Request) (*url.URL, error) {
	if cfg.Proxy != nil {
		return cfg.Proxy
	}
	get := func(name string) string { return cmp.Or(environ(name), environ(strings.ToLower(name))) }
	c := httpproxy.Config{HTTPProxy: get("HTTP_PROXY"), HTTPSProxy: get("HTTPS_PROXY"), NoProxy: get("NO_PROXY"), CGI: environ("REQUEST_METHOD") != ""}
	proxy := c.ProxyFunc()
	return func(r *http.Request) (*url.URL, error) { return proxy(r.URL) }
}

// pingTimes returns the HTTP/2 keepalive times. client-go sends a ping every 30 s, which
// wakes each node unnecessarily. So pings are off, unless the administrator sets the
// variables that client-go reads.
func pingTimes(environ func(string) string) (idle, answer time.Duration) {
	seconds := func(name string) time.Duration {
		n, err := strconv.ParseUint(environ(name), 10, 31)
		if err != nil {
			return 0
		}
		return time.Duration(n) * time.Second
	}
	return seconds("HTTP2_READ_IDLE_TIMEOUT_SECONDS"), seconds("HTTP2_PING_TIMEOUT_SECONDS")
}

// RoundTrip implements http.RoundTripper. It withholds a response with Retry-After for a random
// time of at most longestSpread, because client-go repeats the request after exactly the requested
// time: the nodes that an overloaded server has rejected together would all come back together. It
// does not if the time limit of the request is near, so that the response is not lost. Watch
// requests have their own delays.
func (t *caTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.current().RoundTrip(req)
	if err == nil && req.URL.Query().Get("watch") == "" {
		if d := askedDelay(resp); d > 0 {
			limit, limited := req.Context().Deadline()
			if !limited || time.Until(limit) > d+longestSpread {
				t.pause(req.Context(), rand.N(min(d, longestSpread)))
			}
		}
		resp.Body = struct {
			io.Reader
			io.Closer
		}{&boundedReader{resp.Body, maxAnswer, errAnswerTooBig}, resp.Body}
	}
	return resp, err
}

// longestSpread is the longest time for which a response with Retry-After is withheld.
const longestSpread = 2 * time.Second

// askedDelay returns the delay that the server requests before the next attempt, 0 for none.
func askedDelay(resp *http.Response) time.Duration {
	if resp.StatusCode != http.StatusTooManyRequests && resp.StatusCode < 500 {
		return 0
	}
	seconds, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// CloseIdleConnections is called by Client.Close.
func (t *caTransport) CloseIdleConnections() { t.current().CloseIdleConnections() }

func (t *caTransport) current() *http.Transport {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.caFile == "" {
		return t.now
	}
	now, err := stampOf(t.caFile)
	if err == nil && now == t.seen {
		return t.now
	}
	pool := x509.NewCertPool()
	if err == nil {
		var data []byte
		if data, err = readSmall(t.caFile, maxCertFile); err == nil {
			var certs []*x509.Certificate
			certs, err = parseCerts(data)
			for _, c := range certs {
				pool.AddCert(c)
			}
		}
	}
	if err != nil {
		// The file is incomplete, or temporarily missing: keep the last CA, and check
		// again at the next request.
		if t.bad != err.Error() {
			t.bad = err.Error()
			t.log.Warn("the CA file cannot be used; keeping the last one", "file", t.caFile, "error", err)
		}
		return t.now
	}
	t.log.Info("the CA file has changed; using it for new connections", "file", t.caFile)
	old := t.now
	fresh := t.tls.Clone()
	fresh.RootCAs = pool
	t.now, t.seen, t.bad = t.make(fresh), now, ""
	old.CloseIdleConnections()
	return t.now
}

// boundedReader returns tooBig after left bytes.
type boundedReader struct {
	r      io.Reader
	left   int
	tooBig error
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, b.tooBig
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// The kernel detects a dead connection without waking the process: after 60 s without
// data it sends a probe every 15 s, and it closes the connection if data or a probe is not
// acknowledged for 45 s. So a half-open connection is closed within two minutes while
// idle, and within 45 s if there is data to send.
const (
	dialTimeout   = 10 * time.Second
	keepIdle      = 60 * time.Second
	keepInterval  = 15 * time.Second
	keepCount     = 3
	unackedMillis = 45_000
)

// dial opens a connection to the API server or its proxy.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control: func(_, _ string, c syscall.RawConn) error {
			// Best effort: without this option, keepalive still works.
			return c.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedMillis)
			})
		},
	}
	return d.DialContext(ctx, network, address)
}

// dial opens a connection and wraps it.
func (o Options) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := dial(ctx, network, address)
	if err == nil && o.WrapConn != nil {
		conn = o.WrapConn(conn)
	}
	return conn, err
}

// debugHandler is a handler for the log of client-go. It logs information, warnings and errors
// at debug level, because this package reports the same failures itself. It drops records
// of client-go's verbosity levels (request bodies, feature gates), which are for its
// developers.
type debugHandler struct{ slog.Handler }

func (l debugHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && l.Handler.Enabled(ctx, slog.LevelDebug)
}

func (l debugHandler) Handle(ctx context.Context, r slog.Record) error {
	// klog's bridge passes on errors without calling Enabled.
	if !l.Enabled(ctx, r.Level) {
		return nil
	}
	r = r.Clone()
	r.AddAttrs(slog.String("from", "client-go"), slog.String("its_level", r.Level.String()))
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

func (l debugHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return debugHandler{l.Handler.WithAttrs(a)}
}
func (l debugHandler) WithGroup(g string) slog.Handler { return debugHandler{l.Handler.WithGroup(g)} }

var klogOnce sync.Once

// quietKlog redirects client-go's global log to the log of the first client of the
// process.
func quietKlog(log *slog.Logger) { klogOnce.Do(func() { redirectKlog(log) }) }

// redirectKlog redirects klog. It also stops the timer with which klog flushes log files,
// because there are none.
func redirectKlog(log *slog.Logger) {
	klog.StopFlushDaemon()
	klog.SetSlogLogger(slog.New(debugHandler{log.Handler()}))
}

// warnings logs warnings of the server, for example about deprecated versions.
type warnings struct{ log *slog.Logger }

var _ rest.WarningHandler = warnings{}

// HandleWarningHeader implements rest.WarningHandler.
func (w warnings) HandleWarningHeader(code int, agent, text string) {
	if code == 299 && text != "" {
		w.log.Debug("warning from the API server", "text", clip(text))
	}
}
