package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstBackOff = 5 * time.Millisecond
	lastBackOff  = time.Second
)

// Accept waits for the next connection that may come in, a *Conn. It fails only
// when the listener is closed (net.ErrClosed) or broken: who is over a limit is
// turned away, and while the process has no descriptor to spare, clients wait in
// the kernel's queue.
func (l *Listener) Accept() (net.Conn, error) {
	var backOff time.Duration
	for {
		if err := l.gate(); err != nil {
			return nil, err
		}
		c, err := l.acceptOne()
		switch {
		case c != nil:
			return c, nil
		case err == nil: // turned away
			backOff = 0
		case errors.Is(err, os.ErrDeadlineExceeded): // StopAccepting or Probe
		case l.ctx.Err() != nil:
			return nil, net.ErrClosed
		case exhausted(err):
			if backOff == 0 {
				l.log.Warn("cannot take connections for now; clients wait", "error", err,
					"hint", "raise LimitNOFILE= in the unit, or lower the limit of connections")
			}
			backOff = min(max(2*backOff, firstBackOff), lastBackOff)
			l.pause(backOff)
		default:
			return nil, fmt.Errorf("accept: %w", err)
		}
	}
}

// exhausted: errors of accept(2) that pass without our doing.
func exhausted(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// gate answers Probe, and waits while accepting is stopped.
func (l *Listener) gate() error {
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

func (l *Listener) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.ctx.Done():
	}
}

// acceptOne gives neither connection nor error for one that was turned away.
func (l *Listener) acceptOne() (net.Conn, error) {
	l.accepting.RLock()
	defer l.accepting.RUnlock()
	raw, err := l.ul.Accept()
	if err != nil {
		return nil, err
	}
	l.accepted.Add(1)
	peer, err := l.peerOf(raw)
	if err != nil {
		raw.Close()
		l.noPeer.Add(1)
		l.turnAway(Peer{}, err)
		return nil, nil
	}
	release, refusal := l.limiter.Acquire(peer.UID)
	// More than one when users without a connection have used the reserve.
	for shared(refusal) && l.makeRoom(peer.UID) {
		release, refusal = l.limiter.Acquire(peer.UID)
	}
	if refusal != nil {
		l.refused.Add(1)
		l.turnAway(peer, refusal)
		if release = l.courteously(peer); release == nil {
			raw.Close()
			return nil, nil
		}
	}
	return l.conn(raw, peer, release, refusal), nil
}

// courteously gives a place above the limits, or nil.
func (l *Listener) courteously(p Peer) func() {
	if l.courtesy == nil {
		return nil
	}
	release, err := l.courtesy.Acquire(p.UID)
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

// turnAway tells of each, and logs few: whoever is turned away may come back a
// thousand times a second.
func (l *Listener) turnAway(p Peer, err error) {
	if l.turned != nil {
		l.turned(p, err)
	}
	if l.records.Allow(p.UID) {
		l.log.Warn("connection turned away", "uid", p.UID, "pid", p.PID, "error", err)
	}
}
