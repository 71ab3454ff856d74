// Package unixsocket is the listening socket of a node-local service: it takes the
// socket from systemd or creates it, identifies clients by kernel peer credentials, and
// enforces limits per user.
//
// It must not know what is served over the connections (no gRPC, no Kubernetes), nor
// what a caller is allowed to do: it reports the caller, and limits the load.
//
// # Isolation between users
//
// If a user opens too many connections, sends nothing on them, or sends too many
// requests, only that user is refused: every limit is counted per uid, as reported by
// the kernel. LimiterOptions.Total is shared: a part of it is reserved for users without
// a slot, and a full listener closes idle connections of the user with the most
// connections. Records limits the log records about callers in the same way.
//
// # Restarts and idle exits
//
// With a socket from systemd, the kernel queues clients while no process accepts: a
// client that connects after Quiesce, Drain or the exit of one process waits for the
// next process, and is not refused. With a socket created by this process, clients are
// refused after Close has removed the socket.
//
// # Idle cost
//
// One goroutine waits in accept. There are no timers, except one per connection on which
// the first bytes have not arrived, and the one of an Idle while there are no calls.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"golang.org/x/sys/unix"
)

// Options configure a Listener. Only Path and Log are required.
type Options struct {
	Path  string      // absolute; its directory must exist, and only root or this user may change it
	Mode  fs.FileMode // permission bits; 0: 0666, or 0660 with a Group. Connecting requires write permission
	Group string      // name or number; "": the group of the process
	// Name is the FileDescriptorName= of the socket to use if systemd passes several. If
	// systemd passes a socket, the socket unit determines path, mode and group, and Path,
	// Mode and Group are not used.
	Name string
	Log  *slog.Logger

	// Limiter limits the connections per user, as slots. nil: no limits.
	Limiter *Limiter
	// OverLimit is how many connections above a limit each user gets, so that the
	// server can respond with the reason (Conn.Refused); all users together get 16
	// times as many. All others are closed immediately.
	OverLimit int

	// Handshake is the time limit until HandshakeBytes have been read from a
	// connection. 0: 10 s; negative: no limit. HandshakeBytes below 1 means 1.
	Handshake      time.Duration
	HandshakeBytes int

	// Idle counts connections on which the first bytes have not arrived, so that
	// Quiesce considers them. May be nil.
	Idle *Idle

	// Rejected is called for each rejected connection, with a *LimitError, ErrSlow, or
	// ErrNoPeer and the zero Peer. It must not block. May be nil.
	Rejected func(Peer, error)

	// Records limits the log records about connections. nil: one per user in 10 s.
	Records *Records

	// PeerOf replaces the kernel peer credentials in tests. nil: PeerOf.
	PeerOf func(net.Conn) (Peer, error)
}

const (
	defaultHandshake = 10 * time.Second
	overLimitForAll  = 16
)

// Listen uses the socket that systemd passed to this process, or creates one at Path. It
// removes a stale socket, but never one that another process listens on (ErrInUse). A
// created socket has a lock file, Path.lock, until Close.
func Listen(o Options) (*Listener, error) {
	if o.Mode == 0 {
		o.Mode = 0o666
		if o.Group != "" {
			o.Mode = 0o660
		}
	}
	if o.Mode&^fs.ModePerm != 0 || o.Mode&0o600 != 0o600 {
		return nil, fmt.Errorf("invalid socket mode %04o: use permission bits, with read and write for the owner", o.Mode)
	}
	ul, err := activated(o.Name, o.Log)
	if err != nil {
		return nil, err
	}
	if ul != nil {
		if at := ul.Addr().String(); !samePlace(at, o.Path) {
			o.Log.Warn("the socket from systemd is not at the configured path", "socket", at, "configured", o.Path,
				"hint", "set ListenStream= in the socket unit and the path in the configuration to the same value")
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
	ul, owned, err := createSocket(path, o.Mode, gid)
	if err != nil {
		return nil, fmt.Errorf("socket %s: %w", o.Path, err)
	}
	return newListener(ul, owned, o), nil
}

// samePlace reports whether two paths are equal after resolving symbolic links in their
// directories: /var/run is a link to /run.
func samePlace(a, b string) bool {
	ra, err1 := resolve(a)
	rb, err2 := resolve(b)
	return a == b || err1 == nil && err2 == nil && ra == rb
}

// activated returns the listening socket that systemd passed to this process
// (sd_listen_fds(3)): the one with FileDescriptorName=name, or else the first suitable
// one; nil if systemd passed none. It clears the environment variables, so that child
// processes do not use them.
func activated(name string, log *slog.Logger) (*net.UnixListener, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	var chosen *os.File
	var unsuitable error
	for _, f := range files {
		if err := checkSocket(f); err != nil {
			unsuitable = errors.Join(unsuitable, fmt.Errorf("descriptor %d (%s): %w", f.Fd(), f.Name(), err))
		} else if chosen == nil || name != "" && f.Name() == name && chosen.Name() != name {
			chosen = f
		}
	}
	defer func() {
		for _, f := range files {
			f.Close() // the listener has its own descriptor
		}
	}()
	if chosen == nil {
		return nil, fmt.Errorf("systemd passed no listening Unix stream socket; the socket unit needs ListenStream= with a path, and Accept=no: %w", unsuitable)
	}
	for _, f := range files {
		if f != chosen {
			log.Warn("a socket of the socket unit is not used", "name", f.Name(), "hint", "remove all but one ListenStream= from the socket unit")
		}
	}
	l, err := net.FileListener(chosen)
	if err != nil {
		return nil, fmt.Errorf("socket from systemd: %w", err)
	}
	return l.(*net.UnixListener), nil
}

func checkSocket(f *os.File) error {
	for _, want := range []struct {
		option, value int
		unsuitable    string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "not a Unix socket"},
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "not listening"},
	} {
		switch got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, want.option); {
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case got != want.value:
			return errors.New(want.unsuitable)
		}
	}
	return nil
}

// Listener is a net.Listener that returns *Conn.
type Listener struct {
	ul       acceptor
	owned    *socketFile // nil: systemd's
	log      *slog.Logger
	limiter  *Limiter
	above    *Limiter
	idle     *Idle
	rejected func(Peer, error)
	peerOf   func(net.Conn) (Peer, error)

	handshake      time.Duration
	handshakeBytes int

	ctx   context.Context // ends with Close
	close func() error

	accepting sync.RWMutex // read-locked from accept(2) until the connection is counted
	mu        sync.Mutex
	resumed   chan struct{} // not nil while accepting is stopped; closed by startAccepting
	probe     chan struct{} // not nil while Probe waits; closed by Accept
	probed    chan struct{} // buffers one value: Accept must check probe

	handshakes sync.WaitGroup // connections on which the first bytes have not arrived
	open       atomic.Int64

	held    holders
	records *Records
	ours    bool // records are the listener's own
}

// acceptor is a *net.UnixListener, or a failing one in tests.
type acceptor interface {
	net.Listener
	SetDeadline(time.Time) error
}

func newListener(ul acceptor, owned *socketFile, o Options) *Listener {
	l := &Listener{
		ul: ul, owned: owned, log: o.Log, limiter: o.Limiter, idle: o.Idle, rejected: o.Rejected, peerOf: o.PeerOf,
		handshake: o.Handshake, handshakeBytes: max(o.HandshakeBytes, 1), probed: make(chan struct{}, 1),
		above: NewLimiter(LimiterOptions{
			User:  Quota{Slots: o.OverLimit},
			Root:  Quota{Slots: o.OverLimit},
			Total: overLimitForAll * o.OverLimit,
		}),
	}
	if o.OverLimit <= 0 {
		l.above = nil
	}
	if l.records = o.Records; l.records == nil {
		l.records, l.ours = NewRecords(RecordOptions{Rate: 1 / logEvery.Seconds(), Burst: 1, Suppressed: l.suppressed}), true
	}
	if l.handshake == 0 {
		l.handshake = defaultHandshake
	}
	if l.peerOf == nil {
		l.peerOf = PeerOf
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.ctx = ctx
	l.close = sync.OnceValue(func() error {
		cancel()
		if l.ours {
			l.records.Close()
		}
		var err error
		if l.owned != nil {
			err = l.owned.remove() // while the socket is open
		}
		return errors.Join(err, l.ul.Close())
	})
	return l
}

// Activated reports whether the socket is from systemd.
func (l *Listener) Activated() bool { return l.owned == nil }

// Addr returns the path of the socket, with symbolic links in its directory resolved.
func (l *Listener) Addr() net.Addr { return l.ul.Addr() }

// Close ends Accept, and removes the socket if this process created it and it is still
// there. Accepted connections stay open. Later calls return the same error.
func (l *Listener) Close() error { return l.close() }

// stopAccepting makes Accept wait. When it returns, every accepted connection is
// counted by Options.Idle, and Accept returns it. Later clients wait in the kernel's
// queue: for startAccepting, or, if the socket is from systemd, for the next process.
func (l *Listener) stopAccepting() {
	l.mu.Lock()
	if l.resumed == nil {
		l.resumed = make(chan struct{})
		_ = l.ul.SetDeadline(time.Unix(1, 0)) // wakes accept(2); fails if closed
	}
	l.mu.Unlock()
	l.accepting.Lock()
	//lint:ignore SA2001 waits for connections between accept and counting
	l.accepting.Unlock()
}

// startAccepting undoes stopAccepting.
func (l *Listener) startAccepting() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resumed != nil {
		if l.probe == nil {
			_ = l.ul.SetDeadline(time.Time{})
		}
		close(l.resumed)
		l.resumed = nil
	}
}

// Quiesce prepares the exit of an idle process. It returns true if no activity is in
// progress; the listener then accepts no further client, so the server can close its
// connections and the process can exit. If the socket is from systemd, clients that
// connect from then on are not refused. Quiesce returns false if a client has connected
// before: the listener continues to accept, and Options.Idle reports again.
func (l *Listener) Quiesce() bool {
	l.stopAccepting()
	if l.idle.Busy() {
		l.startAccepting()
		return false
	}
	return true
}

// Drain stops accepting. It returns when every accepted connection has received its
// first bytes or is closed, or after limit. Call it before a server exits: a gRPC server
// closes connections that it has accepted but not started to read, although the next
// process would serve those clients.
func (l *Listener) Drain(limit time.Duration) {
	l.stopAccepting()
	all := make(chan struct{})
	go func() {
		defer close(all)
		l.handshakes.Wait() // Options.Handshake limits each of them
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-all:
	case <-t.C:
	}
}

// logEvery is the time between two records about one user's connections, unless
// Options.Records says otherwise.
const logEvery = 10 * time.Second

func (l *Listener) suppressed(s Suppressed) {
	l.log.Warn("log records about connections suppressed", "uid", s.UID, "users", s.Users, "count", s.Count)
}

// Open returns how many connections are open, including those above a limit.
func (l *Listener) Open() int { return int(l.open.Load()) }
