package unixsocket

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Listener is a net.Listener whose connections are *Conn.
type Listener struct {
	ul       acceptor
	made     *own // nil: systemd's
	log      *slog.Logger
	limiter  *Limiter
	courtesy *Limiter
	idle     *Idle
	turned   func(Peer, error)
	peerOf   func(net.Conn) (Peer, error)

	handshake      time.Duration
	handshakeBytes int

	ctx   context.Context // ends with Close
	close func() error

	accepting sync.RWMutex // read-locked from accept(2) until the connection is counted
	mu        sync.Mutex
	resumed   chan struct{} // not nil while accepting is stopped; closed when it goes on
	probe     chan struct{} // not nil while Probe waits; closed by Accept
	asked     chan struct{} // has room for one: Accept shall look for probe

	coming                          sync.WaitGroup // connections that have not said their first bytes
	open                            atomic.Int64
	accepted, refused, slow, noPeer atomic.Uint64
	evicted                         atomic.Uint64

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
		courtesy: NewLimiter(LimiterOptions{
			User:  Share{Slots: o.Courtesy},
			Root:  Share{Slots: o.Courtesy},
			Total: courtesyForAll * o.Courtesy,
		}),
	}
	if o.Courtesy <= 0 {
		l.courtesy = nil
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
			err = l.made.remove() // while the socket is open: see there
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

// StopAccepting makes Accept wait. When it returns, every connection that was
// taken from the kernel is on its way out of Accept and known to Options.Idle; later clients
// wait in the kernel's queue: for StartAccepting, or, if the socket is
// systemd's, for the next process that has it.
func (l *Listener) StopAccepting() {
	l.mu.Lock()
	if l.resumed == nil {
		l.resumed = make(chan struct{})
		_ = l.ul.SetDeadline(time.Unix(1, 0)) // wakes accept(2); fails when closed
	}
	l.mu.Unlock()
	l.accepting.Lock()
	//lint:ignore SA2001 waits for those who are between accept and counting
	l.accepting.Unlock()
}

// StartAccepting undoes StopAccepting.
func (l *Listener) StartAccepting() {
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

// Quiesce is the question of a process that wants to exit because it is idle.
// true: nothing goes on, and nobody new comes in any more; the server may close
// its connections in its orderly way and the process exit. With systemd's socket
// nobody who connects meanwhile is refused. false: somebody came in time; all
// goes on as before, and Options.Idle will tell again.
func (l *Listener) Quiesce() bool {
	l.StopAccepting()
	if l.idle.Busy() {
		l.StartAccepting()
		return false
	}
	return true
}

// Arrive stops accepting, and returns when everybody who was let in before has
// said the first bytes or is gone, but not later than after limit. A server that
// stops asks for it first: one of gRPC closes whom it has accepted and not begun
// to read, though the next process would have served that client.
func (l *Listener) Arrive(limit time.Duration) {
	l.StopAccepting()
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

// Stats are counts since the start, except Open.
type Stats struct {
	Open                            int // connections now, with those of courtesy
	Accepted, Refused, Slow, NoPeer uint64
	Evicted                         uint64 // closed in favor of another user
}

// Stats can be called at any time.
func (l *Listener) Stats() Stats {
	return Stats{
		Open: int(l.open.Load()), Accepted: l.accepted.Load(),
		Refused: l.refused.Load(), Slow: l.slow.Load(), NoPeer: l.noPeer.Load(), Evicted: l.evicted.Load(),
	}
}
