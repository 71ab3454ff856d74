package server

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/test/bufconn"
)

// SelfCheck checks for the watchdog that the daemon accepts connections and responds:
// the accept loop of the socket runs, and a call of the health service passes through
// the same interceptors as every call. The call uses a separate connection inside the
// process: it takes no slot of a client and no file descriptor, keeps no memory between
// two checks, and does not prevent the idle exit.
type SelfCheck struct {
	socket Socket
	inside *bufconn.Listener // buffered, because both ends of HTTP/2 send first
	over   chan struct{}
	end    func()
}

// Socket is a listening socket, a *unixsocket.Listener.
type Socket interface {
	Probe(context.Context) error
}

// NewSelfCheck returns the SelfCheck of the Transport that listens on socket.
func NewSelfCheck(socket Socket) *SelfCheck {
	c := &SelfCheck{socket: socket, inside: bufconn.Listen(writeBuffer), over: make(chan struct{})}
	c.end = sync.OnceFunc(func() { close(c.over) })
	return c
}

// Probe returns nil if the service responds. A shutdown has a separate time limit, so
// Probe checks nothing after it has started.
func (c *SelfCheck) Probe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		if err := c.socket.Probe(ctx); err != nil {
			answer <- fmt.Errorf("the socket does not accept connections: %w", err)
			return
		}
		answer <- c.call(ctx)
	}()
	var err error
	select {
	case <-c.over:
		cancel()
		<-answer
	case err = <-answer:
	}
	select {
	case <-c.over:
		return nil
	default:
		return err
	}
}

// call calls Check of the health service. A gRPC client would keep goroutines and
// buffers for a call every 30 seconds.
func (c *SelfCheck) call(ctx context.Context) error {
	const empty = "\x00\x00\x00\x00\x00" // not compressed, no bytes: a request without fields
	conn, err := c.inside.DialContext(ctx)
	if err != nil {
		return fmt.Errorf("the service does not respond: %w", err)
	}
	defer conn.Close()
	client := &http.Transport{
		Protocols: new(http.Protocols), DisableCompression: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}
	client.Protocols.SetUnencryptedHTTP2(true)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://self/grpc.health.v1.Health/Check", strings.NewReader(empty))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	a, err := client.RoundTrip(r)
	if err != nil {
		return fmt.Errorf("the service does not respond: %w", err)
	}
	defer a.Body.Close()
	// The status follows the body, or replaces it.
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return fmt.Errorf("the service does not respond: %w", err)
	}
	if code := a.Trailer.Get("Grpc-Status") + a.Header.Get("Grpc-Status"); code != "0" {
		return fmt.Errorf("the service responds with HTTP status %d and gRPC status %q", a.StatusCode, code)
	}
	return nil
}

// serve makes the gRPC server serve the calls until it has stopped. wait returns after
// that.
func (c *SelfCheck) serve(g *grpc.Server) (wait func()) {
	if c == nil {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(selfListener{c.inside}) // ends when g stops; if it ends before, Probe fails
	}()
	return func() {
		c.stop()
		<-ended
	}
}

// stop ends the checks. It is called when the shutdown starts.
func (c *SelfCheck) stop() {
	if c != nil {
		c.end()
	}
}

type selfListener struct{ *bufconn.Listener }

func (l selfListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return selfConn{c}, nil
}

// selfConn is a connection of SelfCheck; peerCredentials recognizes the type.
type selfConn struct{ net.Conn }

// Probe returns nil if the locks that requests take can be acquired. Locking cannot be
// cancelled, so if the service hangs, a goroutine remains: the watchdog is about to
// kill the process.
func (s *Service) Probe(ctx context.Context) error {
	free := make(chan struct{})
	go func() {
		defer close(free)
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range s.feeds {
			f.get("")
		}
		s.tombstones.find("")
	}()
	select {
	case <-free:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
