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

// perRequest is what a request is taken to cost beside its own bytes: a
// goroutine, its stack and the stream's state.
const perRequest = 4 << 10

// errTooMuch ends a connection.
var errTooMuch = errors.New("the requests and answers of one user take more memory than limits.memory_per_user or limits.memory allows")

// meters count the memory of each user: that of requests, from the first byte of a
// request until its answer is sent, and what calls hold for the user, such as
// answers that the client has not read. For requests they look at
// the frames of the connections (RFC 9113): the limits of gRPC count requests
// that have come in whole, and those of one connection. For the rest see charge.
type meters struct {
	most  int64 // bytes per user; 0: any number
	total int64 // bytes of all users; 0: any number
	over  func(identity)
	wait  time.Duration // of answers for space; 0: patience

	mu      sync.Mutex
	users   map[uint32]*meter
	sum     int64 // bytes of all users
	holders int   // users who hold something
}

// meter is one user's.
type meter struct {
	all   *meters
	uid   uint32
	conns int           // a meter is forgotten with its last connection
	held  int64         // bytes
	freed chan struct{} // not nil while a call waits for space; closed when there is some
	queue int           // calls that wait for space
}

// leastShare is what a user may hold however many users there are.
const leastShare = 64 << 10

// limit is how much the user may hold; 0: any number. While all users together
// hold less than half of the total, each may hold the most of one user;
// otherwise the other half is divided equally. It is called under mu.
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

// soft is the part of a limit up to which answers and further requests are
// taken. The rest is for the requests that are refused with an error.
func soft(limit int64) int64 { return limit / 4 * 3 }

// crowded tells that the user should get no more requests: above this they are
// refused with an error, and only traffic above the limit ends the connection.
func (m *meter) crowded() bool {
	if m == nil {
		return false
	}
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	limit := m.limit()
	return limit > 0 && m.held > soft(limit)
}

// add changes what the user holds and tells whether that is allowed.
func (m *meter) add(bytes int64) bool {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.change(bytes)
	limit := m.limit()
	return limit == 0 || bytes <= 0 || m.held <= limit
}

// change is called under mu.
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

// dequeue tells that a call waits no more.
func (m *meter) dequeue() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	m.queue--
}

// leave is called under mu.
func (m *meter) leave(bytes int64) {
	m.change(-bytes)
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
	Begin()
	End()
}

// preface is how many bytes a client sends before its first frame (RFC 9113, 3.4).
const preface = 24

// meteredConn reads along.
type meteredConn struct {
	net.Conn
	id     identity
	calls  calls // nil: not notified
	once   sync.Once
	unread *bufio.Reader
	polite bool // the last frame ended a request: its handler comes first

	mu     sync.Mutex       // reads and writes come from different goroutines
	live   map[uint32]int64 // bytes of requests, by their streams
	change int64            // what the frames of one call have added up to
	closed bool

	in, out frames

	owed int64 // by the charges of its calls, under the mutex of all meters
	gone bool  // likewise: nothing is owed any more
}

// Read fails when the user holds too much. Between two requests it lets others
// run: a client that sends thousands at once would otherwise fill the scheduler's
// queue before those of all others.
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
		all := c.id.meter.all
		all.mu.Lock()
		defer all.mu.Unlock()
		c.gone = true
		c.id.meter.leave(held + c.owed)
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
	if len(c.live) == 0 && c.calls != nil {
		c.calls.Begin()
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
		c.calls.End()
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

// frame is the head of one.
type frame struct {
	kind, flags byte
	stream      uint32
	size        int64 // of what follows
}

// frames finds the heads of frames in a stream of bytes, however it is cut.
type frames struct {
	head [9]byte
	have int   // bytes of the head
	left int64 // bytes to pass over before the next head
}

// between tells that the next byte begins a frame.
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
