package server

import (
	"bufio"
	"errors"
	"net"
	"runtime"
	"sync"
)

// perRequest is what a request is taken to cost beside its own bytes: a
// goroutine, its stack and the stream's state.
const perRequest = 4 << 10

// errTooMuch ends a connection.
var errTooMuch = errors.New("the requests of one user that are under way take more memory than limits.memory_per_user allows")

// meters know how much memory the requests of each user take, from the first
// byte of a request until its answer is on the way. They look at the frames of
// the connections (RFC 9113): the limits of gRPC count requests that have come
// in whole, and those of one connection.
type meters struct {
	most int64 // bytes per user; 0: any number
	over func(identity)

	mu    sync.Mutex
	users map[uint32]*meter
}

// meter is one user's.
type meter struct {
	all   *meters
	uid   uint32
	conns int   // a meter is forgotten with its last connection
	held  int64 // bytes
}

// crowded tells that the user should get no more requests: above this they are
// refused in words, and only what goes on above the limit ends the connection.
func (m *meter) crowded() bool {
	if m == nil || m.all.most == 0 {
		return false
	}
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	return m.held > m.all.most/4*3
}

// add changes what the user holds and tells whether that is allowed.
func (m *meter) add(bytes int64) bool {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.held += bytes
	return m.all.most == 0 || bytes <= 0 || m.held <= m.all.most
}

func (m *meter) leave(bytes int64) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.held -= bytes
	if m.conns--; m.conns == 0 {
		delete(m.all.users, m.uid)
	}
}

// watch returns the connection with its traffic counted. The identity gets the
// user's meter.
func (a *meters) watch(c net.Conn, id *identity) net.Conn {
	if a == nil {
		return c
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users == nil {
		a.users = make(map[uint32]*meter)
	}
	m := a.users[id.UID]
	if m == nil {
		m = &meter{all: a, uid: id.UID}
		a.users[id.UID] = m
	}
	m.conns++
	id.meter = m
	return &meteredConn{Conn: c, id: *id, unread: bufio.NewReaderSize(c, readBuffer), live: make(map[uint32]int64), in: frames{left: preface}}
}

// preface is how many bytes a client says before its first frame.
const preface = 24

// meteredConn reads along.
type meteredConn struct {
	net.Conn
	id     identity
	once   sync.Once
	unread *bufio.Reader
	polite bool // the last frame ended a request: its handler comes first

	mu     sync.Mutex       // reads and writes come from different goroutines
	live   map[uint32]int64 // bytes of requests, by their streams
	change int64            // what the frames of one call have added up to
	closed bool

	in, out frames
}

// Read fails when the user holds too much. Between two requests it lets others
// run: a client that sends thousands at once would otherwise fill the
// scheduler's queue, in which everybody else stands behind them.
func (c *meteredConn) Read(p []byte) (int, error) {
	if c.polite && c.in.between() {
		c.polite = false
		runtime.Gosched()
	}
	n, err := c.unread.Read(p)
	if n > 0 && !c.count(&c.in, p[:n], c.asked) {
		c.id.meter.all.over(c.id)
		return 0, errTooMuch
	}
	return n, err
}

// Write sees which requests are done with.
func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count(&c.out, p[:n], c.answered)
	return n, err
}

// Close may be called more than once.
func (c *meteredConn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closed = true
		held := int64(0)
		for _, n := range c.live {
			held += n
		}
		c.id.meter.leave(held)
	})
	return err
}

func (c *meteredConn) count(f *frames, b []byte, see func(frame)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return true
	}
	c.change = 0
	f.feed(b, see)
	return c.change == 0 || c.id.meter.add(c.change)
}

// asked takes a frame of the client.
func (c *meteredConn) asked(f frame) {
	if (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEndStream != 0 {
		c.polite = true
	}
	_, known := c.live[f.stream]
	switch {
	case f.kind == frameReset:
		c.forget(f.stream)
	case f.kind == frameHeaders && !known:
		c.hold(f.stream, perRequest+f.size)
	case known && (f.kind == frameHeaders || f.kind == frameContinuation || f.kind == frameData):
		c.hold(f.stream, f.size)
	}
}

// answered takes a frame of the server.
func (c *meteredConn) answered(f frame) {
	if f.kind == frameReset || f.kind == frameHeaders && f.flags&flagEndStream != 0 {
		c.forget(f.stream)
	}
}

func (c *meteredConn) hold(stream uint32, bytes int64) {
	c.live[stream] += bytes
	c.change += bytes
}

func (c *meteredConn) forget(stream uint32) {
	c.change -= c.live[stream]
	delete(c.live, stream)
}
