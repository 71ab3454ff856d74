package unixsocket

import (
	"errors"
	"sync"
	"time"
)

// holders are the users who have connections, with those. The zero value is
// ready.
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

// remove does nothing for a connection that is not there.
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
// of a user who has the most: the one without a call that has been idle for the
// longest time, or, if all have calls, the one whose last call ended first. Its
// user must then have no fewer connections than uid; but a user without any also
// gets the place of one without a call when no user has more than one.
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

// makeRoom closes a connection of another user so that uid gets one.
func (l *Listener) makeRoom(uid uint32) bool {
	c := l.held.surplus(uid)
	if c == nil {
		return false
	}
	l.evicted.Add(1)
	if l.records.Allow(c.Peer.UID) {
		l.log.Warn("connection closed to make room for another user", "uid", c.Peer.UID, "pid", c.Peer.PID,
			"idle", time.Since(time.Unix(0, c.used.Load())).Round(time.Millisecond), "calls", c.calls.Load())
	}
	_ = c.Close() // the server sees the end of the connection
	return true
}
