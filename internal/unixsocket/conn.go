package unixsocket

import (
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrSlow is what happened to a connection that did not say its first bytes in
// time.
var ErrSlow = errors.New("first bytes did not come in time")

// Conn is an accepted connection. Close must be called, as always; it gives the
// caller's place among the connections back.
type Conn struct {
	net.Conn
	Peer Peer // not changed after Accept

	refusal error
	limit   time.Time // of the first bytes; of everything if refused; zero: none
	l       *Listener
	release func()
	once    sync.Once
	calls   atomic.Int64 // in progress
	used    atomic.Int64 // when it was last in use, Unix time in nanoseconds

	settled atomic.Bool // the first bytes have come, or it is closed
	mu      sync.Mutex
	missing int       // bytes until settled
	late    bool      // the first bytes did not come in time
	wanted  time.Time // the read deadline that the server has set
}

// Refused is nil, or the *LimitError for which this connection should not be: it
// was let in so that the server can say so. It ends by itself in
// Options.Handshake, whatever deadlines are set.
func (c *Conn) Refused() error { return c.refusal }

// Read ends with os.ErrDeadlineExceeded when the first bytes do not come in time.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.settled.Load() {
		c.progress(n, err)
	}
	return n, err
}

func (c *Conn) progress(n int, err error) {
	c.mu.Lock()
	c.missing -= n
	enough := c.missing <= 0
	if enough && !c.settled.Load() {
		c.settle()
		_ = c.Conn.SetReadDeadline(c.readLimit(c.wanted)) // fails on a closed connection: nothing to do
	}
	slow := !enough && !c.late && !c.limit.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(c.limit)
	c.late = c.late || slow
	c.mu.Unlock()
	if slow {
		c.l.slow.Add(1)
		c.l.turnAway(c.Peer, ErrSlow)
	}
}

// settle is called under mu.
func (c *Conn) settle() {
	if !c.settled.Swap(true) {
		c.l.idle.Leave()
		c.l.coming.Done()
	}
}

// SetDeadline is SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the time limit of reads; one that is later than that of
// the first bytes counts once they have come.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
	return c.Conn.SetReadDeadline(c.readLimit(t))
}

// SetWriteDeadline sets the time limit of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.refusal != nil {
		t = earlier(t, c.limit)
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *Conn) readLimit(t time.Time) time.Time {
	if c.refusal != nil || !c.settled.Load() {
		return earlier(t, c.limit)
	}
	return t
}

// Close may be called more than once.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.mu.Lock()
		c.settle()
		c.mu.Unlock()
		c.release()
		c.l.held.remove(c)
		c.l.open.Add(-1)
	})
	return err
}

// Begin marks the start of a call on the connection: while one is in progress, the
// listener prefers to close other connections when it needs a place.
func (c *Conn) Begin() { c.calls.Add(1) }

// End reports that a call has ended: once for each Begin.
func (c *Conn) End() {
	c.used.Store(time.Now().UnixNano())
	c.calls.Add(-1)
}

// SyscallConn is for socket options. Reading by it bypasses the limits.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}

// earlier takes a zero time for never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}
