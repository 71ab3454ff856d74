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

// Accept waits for the next connection within the limits, a *Conn. It fails only
// when the listener is closed (net.ErrClosed) or broken. Connections above a limit are
// closed, and while the process has no free descriptor, clients wait in the kernel's
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
		case err == nil: // turned away
			backOff = 0
		case errors.Is(err, os.ErrDeadlineExceeded): // stopAccepting or Probe
		case l.ctx.Err() != nil:
			return nil, net.ErrClosed
		case exhausted(err):
			if backOff == 0 {
				l.log.Warn("cannot take connections for now; clients wait", "error", err,
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

// exhausted reports whether err of accept(2) means that descriptors or memory are short.
func exhausted(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// awaitAccepting answers Probe, and waits while accepting is stopped.
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
		case <-l.asked:
		case <-l.ctx.Done():
		}
	}
	return net.ErrClosed
}

// acceptOne returns neither connection nor error for one that was turned away.
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
		l.turnAway(Peer{}, err)
		return nil, nil
	}
	release, refusal := l.limiter.Acquire(peer.UID)
	// More than one when users without a connection have used the reserve.
	for shared(refusal) && l.evictFor(peer.UID) {
		release, refusal = l.limiter.Acquire(peer.UID)
	}
	if refusal != nil {
		l.turnAway(peer, refusal)
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
	l.coming.Add(1)
	limit := l.handshake
	if refusal != nil && limit < 0 {
		limit = defaultHandshake
	}
	if limit > 0 {
		c.limit = time.Now().Add(limit)
		_ = c.SetDeadline(time.Time{}) // fails when it is broken, which Read will say
	}
	return c
}

// turnAway reports each connection to Options.Turned, and logs few: a client that is
// turned away may try again a thousand times a second.
func (l *Listener) turnAway(p Peer, err error) {
	if l.turned != nil {
		l.turned(p, err)
	}
	if l.records.Allow(p.UID) {
		l.log.Warn("connection turned away", "uid", p.UID, "pid", p.PID, "error", err)
	}
}

// holders has the connections of each user. The zero value is ready.
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
	c.used.Store(time.Now().UnixNano())
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

// surplus returns the connection to close so that uid gets one, or nil. It is one
// of the user with the most: the one without a call that has been idle longest, or,
// if all have calls, the one whose last call ended first. Its user must then have no
// fewer connections than uid. If no user has more than one, a user without any gets
// the slot of a connection without a call.
func (h *holders) surplus(uid uint32) *Conn {
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

// shared reports that the slots of all users are taken.
func shared(err error) bool {
	var e *LimitError
	return errors.As(err, &e) && e.Shared
}

// evictFor closes a connection of another user so that uid gets one, if it can.
func (l *Listener) evictFor(uid uint32) bool {
	c := l.held.surplus(uid)
	if c == nil {
		return false
	}
	if l.records.Allow(c.Peer.UID) {
		l.log.Warn("connection closed to make room for another user", "uid", c.Peer.UID, "pid", c.Peer.PID,
			"idle", time.Since(time.Unix(0, c.used.Load())).Round(time.Millisecond), "calls", c.calls.Load())
	}
	_ = c.Close() // the server sees the end of the connection
	return true
}

// Probe returns nil once the goroutine that calls Accept has called it again: new
// clients are accepted, or wait after Quiesce or Drain. It wakes accept(2), and
// makes no connection. The error is that of ctx, or net.ErrClosed.
func (l *Listener) Probe(ctx context.Context) error {
	l.mu.Lock()
	if l.probe == nil {
		l.probe = make(chan struct{})
		_ = l.ul.SetDeadline(time.Unix(1, 0)) // fails when closed, which is seen below
	}
	answered := l.probe
	l.mu.Unlock()
	select {
	case l.asked <- struct{}{}:
	default: // it has not looked since the last time
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

// answer is called under mu by the goroutine that accepts.
func (l *Listener) answer() {
	select {
	case <-l.asked:
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
