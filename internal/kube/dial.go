package kube

import (
	"context"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The kernel notices a dead connection, without waking us: after 60 s of
// silence it probes every 15 s, and it gives up when sent data or a probe has
// not been acknowledged for 45 s. So a half-open connection ends within two
// minutes at idle and within 45 s when there is something to send.
const (
	dialTimeout   = 10 * time.Second
	keepIdle      = 60 * time.Second
	keepInterval  = 15 * time.Second
	keepCount     = 3
	unackedMillis = 45_000
)

// dial opens a connection to the API server or the proxy before it.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: keepIdle, Interval: keepInterval, Count: keepCount},
		Control: func(_, _ string, c syscall.RawConn) error {
			// Best effort: a kernel that refuses still has keepalive.
			return c.Control(func(fd uintptr) {
				_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, unackedMillis)
			})
		},
	}
	return d.DialContext(ctx, network, address)
}
