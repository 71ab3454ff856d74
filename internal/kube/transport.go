package kube

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
	"k8s.io/klog/v2"
)

// maxAnswer bounds an answer that is not a watch, after decompression.
const maxAnswer = 32 << 20

var errAnswerTooBig = fmt.Errorf("the answer of the API server is larger than %d MiB", maxAnswer>>20)

// caTransport sends requests and replaces its connections when the CA file changed,
// which it looks at (one stat) before each request. A running watch keeps the
// connection that it has.
type caTransport struct {
	make   func(*tls.Config) *http.Transport
	tls    *tls.Config
	caFile string // empty: the CA does not come from a file
	log    *slog.Logger

	mu   sync.Mutex
	now  *http.Transport
	seen stamp
	bad  string
}

// newTransport returns the round tripper for cfg with TLS 1.2 or later, client
// certificates that are re-read for each connection, and our dialler. client-go
// is only asked for the parts that hold no connection: its own transport polls
// client certificates, reloads the CA every five minutes and pings.
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
	// The transport negotiates HTTP/2 itself; a preset list would hide it.
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
	t := &caTransport{tls: tlsConfig, log: o.Log, make: func(c *tls.Config) *http.Transport {
		return &http.Transport{
			Proxy:               proxyOf(cfg),
			DialContext:         dial,
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

func proxyOf(cfg *rest.Config) func(*http.Request) (*url.URL, error) {
	if cfg.Proxy != nil {
		return cfg.Proxy
	}
	return http.ProxyFromEnvironment
}

// pingTimes returns the HTTP/2 keep-alive times. client-go pings every 30 s,
// which wakes each node for nothing: off, unless the administrator sets the
// variable that client-go itself reads.
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

// RoundTrip implements http.RoundTripper.
func (t *caTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.current().RoundTrip(req)
	if err == nil && req.URL.Query().Get("watch") == "" {
		resp.Body = struct {
			io.Reader
			io.Closer
		}{&boundedReader{resp.Body, maxAnswer, errAnswerTooBig}, resp.Body}
	}
	return resp, err
}

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
		// Half written, or gone for a moment: what we have stays good, and
		// the next request looks again.
		if t.bad != err.Error() {
			t.bad = err.Error()
			t.log.Warn("the CA file cannot be used, the last one stays in use", "file", t.caFile, "error", err)
		}
		return t.now
	}
	t.log.Info("the CA file changed, new connections use it", "file", t.caFile)
	old := t.now
	fresh := t.tls.Clone()
	fresh.RootCAs = pool
	t.now, t.seen, t.bad = t.make(fresh), now, ""
	old.CloseIdleConnections()
	return t.now
}

// boundedReader fails with tooBig when more is read than what is left.
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

// The kernel notices a dead connection, without waking us: after 60 s of
// silence it probes every 15 s, and it gives up when sent data or a probe has
// not been acknowledged for 45 s. So a half-open connection ends within two
// minutes at idle and within 45 s when there is something to send.
const (
	dialTimeout   = 10 * time.Second
	keepIdle      = 60 * time.Second
	keepInterval  = 15 * time.Second
	keepCount     = 3
	unackedMillis = 45_000
)

// dial opens a connection to the API server or the proxy before it.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control: func(_, _ string, c syscall.RawConn) error {
			// Best effort: a kernel that refuses still has keepalive.
			return c.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedMillis)
			})
		},
	}
	return d.DialContext(ctx, network, address)
}

// lowered passes on, at debug level, what client-go logs as information, warnings and
// errors: we report those as well, once and in our words. What it logs at its own
// verbosity levels (request bodies, feature gates) is for its developers and is left out.
type lowered struct{ slog.Handler }

func (l lowered) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelInfo && l.Handler.Enabled(ctx, slog.LevelDebug)
}

func (l lowered) Handle(ctx context.Context, r slog.Record) error {
	// klog's bridge passes errors on without asking Enabled.
	if !l.Enabled(ctx, r.Level) {
		return nil
	}
	r = r.Clone()
	r.AddAttrs(slog.String("from", "client-go"), slog.String("its_level", r.Level.String()))
	r.Level = slog.LevelDebug
	return l.Handler.Handle(ctx, r)
}

func (l lowered) WithAttrs(a []slog.Attr) slog.Handler { return lowered{l.Handler.WithAttrs(a)} }
func (l lowered) WithGroup(g string) slog.Handler      { return lowered{l.Handler.WithGroup(g)} }

var klogOnce sync.Once

// quietKlog redirects client-go's log, which is global, into ours. The first client
// of the process wins.
func quietKlog(log *slog.Logger) { klogOnce.Do(func() { redirectKlog(log) }) }

// redirectKlog also stops the timer with which klog flushes log files: it has none here.
func redirectKlog(log *slog.Logger) {
	klog.StopFlushDaemon()
	klog.SetSlogLogger(slog.New(lowered{log.Handler()}))
}

// warnings logs what the server warns about, such as deprecated versions.
type warnings struct{ log *slog.Logger }

var _ rest.WarningHandler = warnings{}

// HandleWarningHeader implements rest.WarningHandler.
func (w warnings) HandleWarningHeader(code int, agent, text string) {
	if code == 299 && text != "" {
		w.log.Debug("the API server warns", "text", clip(text))
	}
}
