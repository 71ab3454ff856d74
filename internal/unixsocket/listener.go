// Package unixsocket is the listening socket of a node-local service: taken
// from systemd or made by us, with clients identified by kernel peer credentials
// and held to limits per user.
//
// It must not know what is served over the connections (no gRPC, no
// Kubernetes), nor what a caller may do there: it reports who calls, and limits how
// much.
//
// # What callers can do to each other
//
// A user who opens too many connections, sends nothing on them, or asks too often
// is the only one who is refused: every limit is counted per uid, as the kernel
// reports it. LimiterOptions.Total is shared: a part of it is reserved for users
// without a slot, and a full listener closes idle connections of the user with the
// most. Log records about callers are limited in the same way (Records).
//
// # Restarts and idle exits
//
// With a socket from systemd, the kernel queues clients while no process accepts: a
// client that connects after Quiesce, Drain or the end of one process waits for the
// next process, and is not refused. With a socket of our own it is refused once Close
// has removed the socket.
//
// # What costs nothing at idle
//
// A goroutine waits in accept. There is no timer, except one per connection on which
// the first bytes have not arrived, and the one of an Idle while no client calls.
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

// Options say where to listen and which clients to accept. Only Path and Log must be set.
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
	// OverLimit is how many connections above a limit each user gets, so that the
	// server can answer why it refuses (Conn.Refused); all users together get 16
	// times as many. All others are closed at once.
	OverLimit int

	// Handshake is how long a connection may take until HandshakeBytes have
	// been read from it. 0: 10 s; negative: no limit. HandshakeBytes less than
	// 1 is 1.
	Handshake      time.Duration
	HandshakeBytes int

	// Idle counts connections on which the first bytes have not arrived, so that
	// Quiesce does not overlook them. May be nil.
	Idle *Idle

	// Turned is called for each connection that was turned away: a *LimitError,
	// ErrSlow, or ErrNoPeer without a peer. It must not block. May be nil.
	Turned func(Peer, error)

	// Records decides which records about connections are logged. nil: one per
	// user in 10 s.
	Records *Records

	// PeerOf replaces the kernel's peer credentials, for tests. nil: PeerOf.
	PeerOf func(net.Conn) (Peer, error)
}

const (
	defaultHandshake = 10 * time.Second
	overLimitForAll  = 16
)

// Listen takes the socket that systemd passed to this process, else makes one at
// Path. It replaces no socket that another process listens on (ErrInUse), and removes
// only a stale one. A socket of our own has a lock file, Path.lock, until Close.
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

// activated returns the listening socket that systemd passed to this process
// (sd_listen_fds(3)): the one with FileDescriptorName=name, else the first that
// fits. nil: none was passed. The environment variables are cleared, so that no child
// process takes them for its own.
func activated(name string, log *slog.Logger) (*net.UnixListener, error) {
	files := activation.Files(true)
	if len(files) == 0 {
		return nil, nil
	}
	var chosen *os.File
	var unfit error
	for _, f := range files {
		if err := fits(f); err != nil {
			unfit = errors.Join(unfit, fmt.Errorf("descriptor %d (%s): %w", f.Fd(), f.Name(), err))
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
		return nil, fmt.Errorf("systemd handed over no listening Unix stream socket: does the socket unit have ListenStream= with a path, and Accept=no? %w", unfit)
	}
	for _, f := range files {
		if f != chosen {
			log.Warn("a socket of the socket unit is not used", "name", f.Name(), "hint", "one ListenStream= is enough")
		}
	}
	l, err := net.FileListener(chosen)
	if err != nil {
		return nil, fmt.Errorf("socket of systemd: %w", err)
	}
	return l.(*net.UnixListener), nil
}

func fits(f *os.File) error {
	for _, want := range []struct {
		option, value int
		unfit         string
	}{
		{unix.SO_DOMAIN, unix.AF_UNIX, "not a Unix socket"},
		{unix.SO_TYPE, unix.SOCK_STREAM, "not a stream socket"},
		{unix.SO_ACCEPTCONN, 1, "not listening"},
	} {
		switch got, err := unix.GetsockoptInt(int(f.Fd()), unix.SOL_SOCKET, want.option); {
		case err != nil:
			return os.NewSyscallError("getsockopt", err)
		case got != want.value:
			return errors.New(want.unfit)
		}
	}
	return nil
}

// Listener is a net.Listener whose connections are *Conn.
type Listener struct {
	ul      acceptor
	made    *own // nil: systemd's
	log     *slog.Logger
	limiter *Limiter
	above   *Limiter
	idle    *Idle
	turned  func(Peer, error)
	peerOf  func(net.Conn) (Peer, error)

	handshake      time.Duration
	handshakeBytes int

	ctx   context.Context // ends with Close
	close func() error

	accepting sync.RWMutex // read-locked from accept(2) until the connection is counted
	mu        sync.Mutex
	resumed   chan struct{} // not nil while accepting is stopped; closed by startAccepting
	probe     chan struct{} // not nil while Probe waits; closed by Accept
	asked     chan struct{} // holds at most one value: Accept is to look for probe

	coming sync.WaitGroup // connections on which the first bytes have not arrived
	open   atomic.Int64

	held    holders
	records *Records
	ours    bool // records are the listener's own
}

// acceptor is a *net.UnixListener; tests have one that fails.
type acceptor interface {
	net.Listener
	SetDeadline(time.Time) error
}

func newListener(ul acceptor, made *own, o Options) *Listener {
	l := &Listener{
		ul: ul, made: made, log: o.Log, limiter: o.Limiter, idle: o.Idle, turned: o.Turned, peerOf: o.PeerOf,
		handshake: o.Handshake, handshakeBytes: max(o.HandshakeBytes, 1), asked: make(chan struct{}, 1),
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
		if l.made != nil {
			err = l.made.remove() // while the socket is open
		}
		return errors.Join(err, l.ul.Close())
	})
	return l
}

// Activated reports whether the socket is systemd's.
func (l *Listener) Activated() bool { return l.made == nil }

// Addr is where the socket is, with links in its directory resolved.
func (l *Listener) Addr() net.Addr { return l.ul.Addr() }

// Close ends Accept and removes the socket if it is our own and still in its
// place. What was accepted stays open. Later calls return the same error.
func (l *Listener) Close() error { return l.close() }

// stopAccepting makes Accept wait. When it returns, every connection that was
// accepted is being returned by Accept and is counted by Options.Idle. Later clients
// wait in the kernel's queue: for startAccepting, or, if the socket is systemd's, for
// the next process that has it.
func (l *Listener) stopAccepting() {
	l.mu.Lock()
	if l.resumed == nil {
		l.resumed = make(chan struct{})
		_ = l.ul.SetDeadline(time.Unix(1, 0)) // wakes accept(2); fails when closed
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

// Quiesce is called by a process that is about to exit because it is idle. It returns
// true if no activity is in progress and no further client is accepted: the server may
// close its connections and the process exit. With systemd's socket, clients that
// connect meanwhile are not refused. It returns false if a client connected in time:
// the listener keeps accepting, and Options.Idle reports again.
func (l *Listener) Quiesce() bool {
	l.stopAccepting()
	if l.idle.Busy() {
		l.startAccepting()
		return false
	}
	return true
}

// Drain stops accepting, and returns once the first bytes have arrived on every
// accepted connection or it is closed, but not later than after limit. A server that
// exits calls it first: a gRPC server closes connections that it has accepted and not
// started to read, though the next process would have served those clients.
func (l *Listener) Drain(limit time.Duration) {
	l.stopAccepting()
	all := make(chan struct{})
	go func() {
		defer close(all)
		l.coming.Wait() // bounded by Options.Handshake for each
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
	l.log.Warn("records about connections suppressed", "uid", s.UID, "users", s.Users, "count", s.Count)
}

// Open returns how many connections are open, including those above a limit.
func (l *Listener) Open() int { return int(l.open.Load()) }
