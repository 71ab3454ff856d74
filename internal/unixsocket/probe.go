package unixsocket

import (
	"context"
	"net"
	"time"
)

// Probe returns nil when whoever calls Accept has come round to calling it
// again: new clients are let in, or wait because of StopAccepting. It wakes
// accept(2), and takes no connection and no client's place for it. The error is
// that of ctx, or net.ErrClosed.
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

// answer is called under mu by the one who accepts.
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
