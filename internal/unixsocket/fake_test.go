package unixsocket

import (
	"net"
	"os"
	"sync"
	"testing"
	"time"
)

// fakeSocket is an acceptor without a kernel, so that a test's clock can be
// synctest's. Its connections are pipes of whoever the test says.
type fakeSocket struct {
	queue  chan any // net.Conn or error
	closed chan struct{}

	mu      sync.Mutex
	expired chan struct{}
	peers   map[net.Conn]Peer
}

func newFakeSocket() *fakeSocket {
	return &fakeSocket{queue: make(chan any, 100), closed: make(chan struct{}), expired: make(chan struct{}), peers: map[net.Conn]Peer{}}
}

func (f *fakeSocket) listener(t *testing.T, o Options) *Listener {
	if o.Log == nil {
		o.Log = quiet
	}
	o.PeerOf = f.peerOf
	l := newListener(f, nil, o)
	t.Cleanup(func() { l.Close() })
	return l
}

// connect gives the client's end.
func (f *fakeSocket) connect(t *testing.T, uid uint32) net.Conn {
	client, server := net.Pipe()
	f.mu.Lock()
	f.peers[server] = Peer{UID: uid}
	f.mu.Unlock()
	f.queue <- server
	t.Cleanup(func() { client.Close() })
	return client
}

func (f *fakeSocket) peerOf(c net.Conn) (Peer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.peers[c]
	if !ok {
		return p, ErrNoPeer
	}
	return p, nil
}

func (f *fakeSocket) Accept() (net.Conn, error) {
	f.mu.Lock()
	expired := f.expired
	f.mu.Unlock()
	select {
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	default:
	}
	select {
	case <-expired:
		return nil, os.ErrDeadlineExceeded
	case <-f.closed:
		return nil, net.ErrClosed
	case next := <-f.queue:
		if err, ok := next.(error); ok {
			return nil, err
		}
		return next.(net.Conn), nil
	}
}

func (f *fakeSocket) SetDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	past := false
	select {
	case <-f.expired:
		past = true
	default:
	}
	switch {
	case t.IsZero() && past:
		f.expired = make(chan struct{})
	case !t.IsZero() && !past:
		close(f.expired)
	}
	return nil
}

func (f *fakeSocket) Close() error   { close(f.closed); return nil }
func (f *fakeSocket) Addr() net.Addr { return &net.UnixAddr{Net: "unix", Name: "/fake"} }
