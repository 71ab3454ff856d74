package node

import (
	"context"
	"fmt"
	"sync"
)

// Locks are locks by key that a caller can give up waiting for. A lock exists
// only while it is held or waited for. The zero value is ready for use.
type Locks struct {
	mu    sync.Mutex
	locks map[string]*keyLock
}

type keyLock struct {
	turn  chan struct{} // holds one token while the lock is held
	users int
}

// Lock waits until no other caller holds key. unlock may be called more than
// once. The error is the cause of ctx's end.
func (l *Locks) Lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	k := l.locks[key]
	if k == nil {
		k = &keyLock{turn: make(chan struct{}, 1)}
		if l.locks == nil {
			l.locks = map[string]*keyLock{}
		}
		l.locks[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if k.users--; k.users == 0 {
			delete(l.locks, key)
		}
	}
	select {
	case k.turn <- struct{}{}:
		return sync.OnceFunc(func() { <-k.turn; leave() }), nil
	case <-ctx.Done():
		leave()
		return nil, context.Cause(ctx)
	}
}

// LockVG waits until no other caller works on the volume group vg, since LVM
// commands on one group get in each other's way. unlock may be called more than
// once. The error is the cause of ctx's end.
func (n *Node) LockVG(ctx context.Context, vg string) (unlock func(), err error) {
	if unlock, err = n.shared().locks.Lock(ctx, vg); err != nil {
		return nil, fmt.Errorf("waiting for other commands on VG %s: %w", vg, err)
	}
	return unlock, nil
}
