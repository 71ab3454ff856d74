package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstBackOff = 5 * time.Millisecond
	lastBackOff  = time.Second
)

// Accept waits for the next connection within the limits, and returns it as a *Conn. It
// fails only if the listener is closed (net.ErrClosed) or broken. It closes connections
// above a limit. While the process has no free descriptor, clients wait in the kernel's
// queue.
func (l *Listener) Accept() (net.Conn, error) {
	var backOff time.Duration
	for {
		if err := l.awaitAccepting(); err != nil {
			return nil, err
		}
		c, err := l.acceptOne()
		switch {
		case c != nil:
			return c, nil
		case err == nil: // rejected
			backOff = 0
		case errors.Is(err, os.ErrDeadlineExceeded): // stopAccepting or Probe
		case l.ctx.Err() != nil:
			return nil, net.ErrClosed
		case exhausted(err):
			if backOff == 0 {
				l.log.Warn("cannot accept connections, retrying; clients wait", "error", err,
					"hint", "raise LimitNOFILE= in the unit, or lower the limit of connections")
			}
			backOff = min(max(2*backOff, firstBackOff), lastBackOff)
			select {
			case <-time.After(backOff):
			case <-l.ctx.Done():
			}
		default:
			return nil, fmt.Errorf("accept: %w", err)
		}
	}
}

// exhausted reports whether accept(2) failed for lack of descriptors or memory.
func exhausted(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// awaitAccepting responds to Probe, and waits while accepting is stopped.
func (l *Listener) awaitAccepting() error {
	for l.ctx.Err() == nil {
		l.mu.Lock()
		resumed := l.resumed
		l.answer()
		l.mu.Unlock()
		if resumed == nil {
			return nil
		}
		select {
		case <-resumed:
		case <-l.probed:
		case <-l.ctx.Done():
		}
	}
	return net.ErrClosed
}

// acceptOne returns neither a connection nor an error if it has rejected the connection.
func (l *Listener) acceptOne() (net.Conn, error) {
	l.accepting.RLock()
	defer l.accepting.RUnlock()
	raw, err := l.ul.Accept()
	if err != nil {
		return nil, err
	}
	peer, err := l.peerOf(raw)
	if err != nil {
		raw.Close()
		l.reject(Peer{}, err)
		return nil, nil
	}
	release, refusal := l.limiter.Acquire(peer.UID)
	// More than one eviction is needed if users without a connection have used the reserve.
	for shared(refusal) && l.evictFor(peer.UID) {
		release, refusal = l.limiter.Acquire(peer.UID)
	}
	if refusal != nil {
		l.reject(peer, refusal)
		if release = l.overLimit(peer); release == nil {
			raw.Close()
			return nil, nil
		}
	}
	return l.conn(raw, peer, release, refusal), nil
}

// overLimit returns a slot above the limits, or nil.
func (l *Listener) overLimit(p Peer) func() {
	if l.above == nil {
		return nil
	}
	release, err := l.above.Acquire(p.UID)
	if err != nil {
		return nil
	}
	return release
}

func (l *Listener) conn(raw net.Conn, peer Peer, release func(), refusal error) *Conn {
	c := &Conn{Conn: raw, Peer: peer, refusal: refusal, l: l, release: release, missing: l.handshakeBytes}
	l.open.Add(1)
	if refusal == nil {
		l.held.add(c)
	}
	l.idle.Enter()
	l.handshakes.Add(1)
	limit := l.handshake
	if refusal != nil && limit < 0 {
		limit = defaultHandshake
	}
	if limit > 0 {
		c.limit = time.Now().Add(limit)
		_ = c.SetDeadline(time.Time{}) // if this fails, Read reports the error
	}
	return c
}

// reject reports each connection to Options.Rejected, and logs within Options.Records: a
// rejected client may retry a thousand times per second.
func (l *Listener) reject(p Peer, err error) {
	if l.rejected != nil {
		l.rejected(p, err)
	}
	if l.records.Allow(p.UID) {
		l.log.Warn("connection rejected", "uid", p.UID, "pid", p.PID, "error", err)
	}
}

// holders has the connections of each user. The zero value is ready to use.
type holders struct {
	mu    sync.Mutex
	users map[uint32]map[*Conn]struct{}
}

func (h *holders) add(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.users == nil {
		h.users = make(map[uint32]map[*Conn]struct{})
	}
	all := h.users[c.Peer.UID]
	if all == nil {
		all = make(map[*Conn]struct{})
		h.users[c.Peer.UID] = all
	}
	c.used.Store(int64(time.Since(epoch)))
	all[c] = struct{}{}
}

// remove does nothing for a connection that it does not have.
func (h *holders) remove(c *Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := h.users[c.Peer.UID]
	delete(all, c)
	if len(all) == 0 {
		delete(h.users, c.Peer.UID)
	}
}

// victim returns the connection to close so that uid gets one, or nil. It belongs to the
// user with the most connections: it is the one without a call that has been idle
// longest, or, if all have calls, the one whose last call ended first. Afterwards its
// user must not have fewer connections than uid. If no user has more than one
// connection, a user without a connection gets the slot of one without a call.
func (h *holders) victim(uid uint32) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	most := 0
	for _, all := range h.users {
		most = max(most, len(all))
	}
	mine := len(h.users[uid])
	var found *Conn
	busy := false
	for other, all := range h.users {
		if other == uid || len(all) < most {
			continue
		}
		for c := range all {
			calls := c.calls.Load() > 0
			if found == nil || busy && !calls || busy == calls && c.used.Load() < found.used.Load() {
				found, busy = c, calls
			}
		}
	}
	if most > mine+1 || mine == 0 && !busy {
		return found
	}
	return nil
}

// shared reports whether err means that the slots of all users are in use.
func shared(err error) bool {
	var e *LimitError
	return errors.As(err, &e) && e.Shared
}

// evictFor closes a connection of another user so that uid gets one, and reports whether
// it has closed one.
func (l *Listener) evictFor(uid uint32) bool {
	c := l.held.victim(uid)
	if c == nil {
		return false
	}
	if l.records.Allow(c.Peer.UID) {
		l.log.Warn("connection closed to free a slot for another user", "uid", c.Peer.UID, "pid", c.Peer.PID,
			"idle", (time.Since(epoch) - time.Duration(c.used.Load())).Round(time.Millisecond), "calls", c.calls.Load())
	}
	_ = c.Close() // the server notices the closed connection
	return true
}

// Probe returns nil when the accept loop has called Accept again: new clients are
// accepted, or wait after Quiesce or Drain. Probe wakes accept(2) and opens no
// connection. The error is that of ctx, or net.ErrClosed.
func (l *Listener) Probe(ctx context.Context) error {
	l.mu.Lock()
	if l.probe == nil {
		l.probe = make(chan struct{})
		_ = l.ul.SetDeadline(time.Unix(1, 0)) // fails if closed, which is checked below
	}
	answered := l.probe
	l.mu.Unlock()
	select {
	case l.probed <- struct{}{}:
	default: // already notified
	}
	select {
	case <-answered:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-l.ctx.Done():
		return net.ErrClosed
	}
}

// answer responds to Probe. The accept loop calls it and holds mu.
func (l *Listener) answer() {
	select {
	case <-l.probed:
	default:
	}
	if l.probe == nil {
		return
	}
	close(l.probe)
	l.probe = nil
	if l.resumed == nil {
		_ = l.ul.SetDeadline(time.Time{})
	}
}
