package unixsocket

import (
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"time"
)

// Options say where to listen and whom to let in. Only Path and Log must be set.
type Options struct {
	Path  string      // absolute; its directory must exist, and belong to root or us alone
	Mode  fs.FileMode // permission bits; 0: 0666, or 0660 with a Group. Connecting needs the right to write
	Group string      // name or number; "": the process's
	// Name is the FileDescriptorName= of the socket to take from systemd when
	// it hands over several. Path, Mode and Group are then those of the socket
	// unit, and these here are not used.
	Name string
	Log  *slog.Logger

	// Limiter has the connections per user, as slots. nil: no limits.
	Limiter *Limiter
	// Courtesy is how many connections above a limit each user gets
	// nevertheless, so that the server can answer why (Conn.Refused); 16 times as
	// many for all users together. All others are closed at once.
	Courtesy int

	// Handshake is how long a connection may take until HandshakeBytes have
	// been read from it. 0: 10 s; negative: no limit. HandshakeBytes less than
	// 1 is 1.
	Handshake      time.Duration
	HandshakeBytes int

	// Idle is told of connections that have not said their first bytes, so
	// that Quiesce does not overlook them. May be nil.
	Idle *Idle

	// Turned is called for each connection that was turned away: a *LimitError,
	// ErrSlow, or ErrNoPeer without a peer. It must not block. May be nil.
	Turned func(Peer, error)

	// Records decides which records about connections are logged. nil: one per
	// user in 10 s.
	Records *Records

	// PeerOf replaces the kernel's word, for tests. nil: PeerOf.
	PeerOf func(net.Conn) (Peer, error)
}

const (
	defaultHandshake = 10 * time.Second
	courtesyForAll   = 16
)

// Listen takes the socket that systemd handed to this process, else makes one at
// Path. It takes a live socket from nobody (ErrInUse), and removes nothing but a
// socket that nobody listens on. Beside a socket of our own lies a lock file,
// Path.lock, until Close.
func Listen(o Options) (*Listener, error) {
	if o.Mode == 0 {
		o.Mode = 0o666
		if o.Group != "" {
			o.Mode = 0o660
		}
	}
	if o.Mode&^fs.ModePerm != 0 || o.Mode&0o600 != 0o600 {
		return nil, fmt.Errorf("mode %04o of the socket: give permission bits, with read and write for its owner", o.Mode)
	}
	ul, err := activated(o.Name, o.Log)
	if err != nil {
		return nil, err
	}
	if ul != nil {
		if at := ul.Addr().String(); !samePlace(at, o.Path) {
			o.Log.Warn("systemd's socket is not where the configuration says", "socket", at, "configured", o.Path,
				"hint", "make ListenStream= of the socket unit and the configuration agree")
		}
		return newListener(ul, nil, o), nil
	}
	path, err := resolve(o.Path)
	if err != nil {
		return nil, err
	}
	gid, err := groupID(o.Group)
	if err != nil {
		return nil, err
	}
	ul, made, err := makeOwn(path, o.Mode, gid)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", o.Path, err)
	}
	return newListener(ul, made, o), nil
}

// samePlace knows that /var/run is a link to /run.
func samePlace(a, b string) bool {
	ra, err1 := resolve(a)
	rb, err2 := resolve(b)
	return a == b || err1 == nil && err2 == nil && ra == rb
}
