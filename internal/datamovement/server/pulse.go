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

// Pulse proves that clients are let in and answered, for the watchdog: the
// socket's accept loop comes round, and a call of the health service goes the
// way of every call. The call comes by a connection inside the process, which is
// made for it: no client's place, no descriptor and no memory in between, and
// it does not keep an idle daemon from leaving.
type Pulse struct {
	door   Door
	inside *bufconn.Listener // with a buffer, because both ends of HTTP/2 speak first
	over   chan struct{}
	end    func()
}

// Door is a listening socket, a *unixsocket.Listener.
type Door interface {
	Probe(context.Context) error
}

// NewPulse makes the Pulse of one Transport that listens at door.
func NewPulse(door Door) *Pulse {
	p := &Pulse{door: door, inside: bufconn.Listen(writeBuffer), over: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.over) })
	return p
}

// Probe returns nil when the service answers. A shutdown has a time limit of its
// own, so from its begin on nothing is asked.
func (p *Pulse) Probe(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	answer := make(chan error, 1)
	go func() {
		if err := p.door.Probe(ctx); err != nil {
			answer <- fmt.Errorf("the socket takes no clients: %w", err)
			return
		}
		answer <- p.call(ctx)
	}()
	var err error
	select {
	case <-p.over:
		cancel()
		<-answer
	case err = <-answer:
	}
	select {
	case <-p.over:
		return nil
	default:
		return err
	}
}

// call is one of the health service's Check. A gRPC client would stay, with
// goroutines and buffers, for one question in half a minute.
func (p *Pulse) call(ctx context.Context) error {
	const empty = "\x00\x00\x00\x00\x00" // not compressed, no bytes: a request without fields
	conn, err := p.inside.DialContext(ctx)
	if err != nil {
		return fmt.Errorf("the service does not answer: %w", err)
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
		return fmt.Errorf("the service does not answer: %w", err)
	}
	defer a.Body.Close()
	// The status comes behind the body, or instead of it.
	if _, err := io.Copy(io.Discard, a.Body); err != nil {
		return fmt.Errorf("the service does not answer: %w", err)
	}
	if code := a.Trailer.Get("Grpc-Status") + a.Header.Get("Grpc-Status"); code != "0" {
		return fmt.Errorf("the service answers with HTTP status %d and gRPC status %q", a.StatusCode, code)
	}
	return nil
}

// serve lets the gRPC server take the calls, until it has stopped: wait waits for
// that.
func (p *Pulse) serve(g *grpc.Server) (wait func()) {
	if p == nil {
		return func() {}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = g.Serve(selfListener{p.inside}) // ends when g stops; Probe tells when it ends before
	}()
	return func() {
		p.stop()
		<-ended
	}
}

// stop is called when the shutdown begins.
func (p *Pulse) stop() {
	if p != nil {
		p.end()
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

// selfConn is by its type known to peerCredentials.
type selfConn struct{ net.Conn }
