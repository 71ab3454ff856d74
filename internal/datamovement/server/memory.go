package server

import (
	"bufio"
	"encoding/binary"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// perRequest is the memory that is charged for a request in addition to its own bytes:
// for a goroutine, its stack and the state of the stream.
const perRequest = 4 << 10

// errTooMuch closes a connection.
var errTooMuch = errors.New("the requests and responses of one user exceed limits.memory_per_user or limits.memory")

// meters count the memory of each user: of requests, from their first byte until the
// response is sent, and the charges of calls, such as responses that the client has not
// read. For requests they parse the HTTP/2 frames of the connections (RFC 9113),
// because the limits of gRPC cover complete requests only, and only per connection. See
// charge for the rest.
type meters struct {
	most  int64 // bytes per user; 0: no limit
	total int64 // bytes of all users; 0: no limit
	over  func(identity)
	wait  time.Duration // how long responses wait for memory; 0: spaceWait

	mu      sync.Mutex
	users   map[uint32]*meter
	sum     int64 // bytes of all users
	holders int   // users with charged memory
}

// meter counts the memory of one user.
type meter struct {
	all   *meters
	uid   uint32
	conns int           // the meter is removed with its last connection
	held  int64         // bytes
	freed chan struct{} // not nil while a call waits for memory; closed when some is freed
	queue int           // calls that wait for memory
}

// leastShare is the minimum limit of a user, however many users there are.
const leastShare = 64 << 10

// limit returns the user's limit in bytes; 0: no limit. While all users together use at
// most half of the total, it is the limit per user; above that, the other half is
// divided equally among the users. The caller holds mu.
func (m *meter) limit() int64 {
	a := m.all
	if a.total == 0 || a.sum <= a.total/2 {
		return a.most
	}
	share := max(a.total/2/int64(max(a.holders, 1)), leastShare)
	if a.most > 0 {
		share = min(share, a.most)
	}
	return share
}

// soft returns the part of a limit up to which responses and new requests are accepted.
// The rest is for requests that are refused with an error.
func soft(limit int64) int64 { return limit / 4 * 3 }

// aboveSoftLimit reports whether to refuse new requests of the user with an error. Only
// traffic above the full limit closes the connection.
func (m *meter) aboveSoftLimit() bool {
	if m == nil {
		return false
	}
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	limit := m.limit()
	return limit > 0 && m.held > soft(limit)
}

// add adds bytes to the user's memory and reports whether the limit allows it.
func (m *meter) add(bytes int64) bool {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.change(bytes)
	limit := m.limit()
	return limit == 0 || bytes <= 0 || m.held <= limit
}

// change adds bytes to the user's memory. The caller holds mu.
func (m *meter) change(bytes int64) {
	before := m.held
	m.held += bytes
	m.all.sum += bytes
	switch {
	case before <= 0 && m.held > 0:
		m.all.holders++
	case before > 0 && m.held <= 0:
		m.all.holders--
	}
	if bytes < 0 && m.freed != nil {
		close(m.freed)
		m.freed = nil
	}
}

// dequeue ends the wait of a call.
func (m *meter) dequeue() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.queue--
}

// leave removes a connection and its memory. The caller holds mu.
func (m *meter) leave(bytes int64) {
	m.change(-bytes)
	if m.conns--; m.conns == 0 {
		delete(m.all.users, m.uid)
	}
}

// watch returns the connection with its traffic counted, and sets the user's meter in
// the identity.
func (a *meters) watch(c net.Conn, id *identity) net.Conn {
	if a == nil {
		return c
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.users == nil {
		a.users = make(map[uint32]*meter)
	}
	m := a.users[id.caller.UID]
	if m == nil {
		m = &meter{all: a, uid: id.caller.UID}
		a.users[id.caller.UID] = m
	}
	m.conns++
	id.meter = m
	mc := &meteredConn{Conn: c, id: *id, unread: bufio.NewReaderSize(c, readBuffer), live: make(map[uint32]int64), in: frames{left: preface}}
	mc.calls, _ = c.(calls)
	id.conn = mc
	return mc
}

// calls is notified when the first call on a connection starts and the last one
// ends: a *unixsocket.Conn.
type calls interface {
	StartCall()
	EndCall()
}

// preface is the number of bytes that a client sends before its first frame (RFC 9113,
// 3.4).
const preface = 24

// meteredConn counts the memory of a connection's requests.
type meteredConn struct {
	net.Conn
	id     identity
	calls  calls // nil: not notified
	once   sync.Once
	unread *bufio.Reader
	yield  bool // the last frame ended a request: run its handler first

	mu     sync.Mutex       // reads and writes come from different goroutines
	live   map[uint32]int64 // bytes of requests, by stream
	change int64            // sum of the frames of one Read or Write
	closed bool

	in, out frames

	charged int64 // by its calls; under the mutex of all meters
	gone    bool  // everything was given back; under the same mutex
}

// Read fails if the user exceeds the memory limit. Between two requests it yields to
// other goroutines: otherwise a client that sends thousands of requests at once would
// fill the scheduler's queue ahead of all other clients.
func (c *meteredConn) Read(p []byte) (int, error) {
	if c.yield && c.in.between() {
		c.yield = false
		runtime.Gosched()
	}
	n, err := c.unread.Read(p)
	if n > 0 && !c.count(&c.in, p[:n], c.received) {
		c.id.meter.all.over(c.id)
		return 0, errTooMuch
	}
	return n, err
}

// Write detects which requests have ended.
func (c *meteredConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.count(&c.out, p[:n], c.sent)
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
		all := c.id.meter.all
		all.mu.Lock()
		defer all.mu.Unlock()
		c.gone = true
		c.id.meter.leave(held + c.charged)
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

// received handles a frame from the client.
func (c *meteredConn) received(f frame) {
	if (f.kind == frameHeaders || f.kind == frameData) && f.flags&flagEndStream != 0 {
		c.yield = true
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

// sent handles a frame from the server.
func (c *meteredConn) sent(f frame) {
	if f.kind == frameReset || f.kind == frameHeaders && f.flags&flagEndStream != 0 {
		c.forget(f.stream)
	}
}

func (c *meteredConn) hold(stream uint32, bytes int64) {
	if len(c.live) == 0 && c.calls != nil {
		c.calls.StartCall()
	}
	c.live[stream] += bytes
	c.change += bytes
}

func (c *meteredConn) forget(stream uint32) {
	bytes, known := c.live[stream]
	if !known {
		return
	}
	c.change -= bytes
	delete(c.live, stream)
	if len(c.live) == 0 && c.calls != nil {
		c.calls.EndCall()
	}
}

// Kinds and flags of HTTP/2 frames (RFC 9113, 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameContinuation = 9

	flagEndStream = 1
)

// frame is the header of an HTTP/2 frame.
type frame struct {
	kind, flags byte
	stream      uint32
	size        int64 // of the payload
}

// frames parses the headers of the frames in a stream of bytes, however it is split.
type frames struct {
	head [9]byte
	have int   // bytes of the header so far
	left int64 // bytes of the payload before the next header
}

// between reports whether the next byte is the first of a frame.
func (f *frames) between() bool { return f.left == 0 && f.have == 0 }

func (f *frames) feed(b []byte, see func(frame)) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, int64(len(b)))
			f.left -= n
			b = b[n:]
			continue
		}
		n := copy(f.head[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have < len(f.head) {
			return
		}
		f.have = 0
		f.left = int64(f.head[0])<<16 | int64(f.head[1])<<8 | int64(f.head[2])
		see(frame{kind: f.head[3], flags: f.head[4], stream: binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31), size: f.left})
	}
}
