package node

import (
	"context"
	"fmt"
	"sync"
)

// vgLock is a lock that one can give up waiting for. It lives as long as somebody
// holds it or waits for it.
type vgLock struct {
	turn  chan struct{} // holds one token while the lock is held
	users int
}

// LockVG waits until no other caller works on the volume group vg, since LVM
// commands on one group get in each other's way. unlock may be called more than
// once. The error is the cause of ctx's end.
func (n *Node) LockVG(ctx context.Context, vg string) (unlock func(), err error) {
	n.mu.Lock()
	l := n.locks[vg]
	if l == nil {
		l = &vgLock{turn: make(chan struct{}, 1)}
		if n.locks == nil {
			n.locks = map[string]*vgLock{}
		}
		n.locks[vg] = l
	}
	l.users++
	n.mu.Unlock()
	leave := func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if l.users--; l.users == 0 {
			delete(n.locks, vg)
		}
	}
	select {
	case l.turn <- struct{}{}:
		return sync.OnceFunc(func() { <-l.turn; leave() }), nil
	case <-ctx.Done():
		leave()
		return nil, fmt.Errorf("waiting for other commands on VG %s: %w", vg, context.Cause(ctx))
	}
}
