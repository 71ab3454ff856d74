package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrSlow reports a connection on which the first bytes did not arrive in time.
var ErrSlow = errors.New("first bytes did not arrive in time")

// Conn is an accepted connection. Close must be called; it releases the caller's slot.
type Conn struct {
	net.Conn
	Peer Peer // read-only after Accept

	refusal error
	limit   time.Time // deadline of the first bytes, or of the whole connection if refused; zero: none
	l       *Listener
	release func()
	once    sync.Once
	calls   atomic.Int64 // in progress
	used    atomic.Int64 // when it was last in use, in nanoseconds since epoch

	settled atomic.Bool // the first bytes have arrived, or the connection is closed
	mu      sync.Mutex
	missing int       // bytes until settled
	late    bool      // the first bytes did not arrive in time
	wanted  time.Time // the read deadline that the server has set
}

// Refused returns nil, or the *LimitError of a connection above a limit, which
// is accepted so that the server can respond with the error. The connection is closed
// after Options.Handshake, whatever deadlines are set.
func (c *Conn) Refused() error { return c.refusal }

// Read returns os.ErrDeadlineExceeded if the first bytes do not arrive in time.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if !c.settled.Load() {
		c.progress(n, err)
	}
	return n, err
}

func (c *Conn) progress(n int, err error) {
	c.mu.Lock()
	c.missing -= n
	enough := c.missing <= 0
	if enough && !c.settled.Load() {
		c.settle()
		_ = c.Conn.SetReadDeadline(c.readLimit(c.wanted)) // fails only on a closed connection
	}
	slow := !enough && !c.late && !c.limit.IsZero() && errors.Is(err, os.ErrDeadlineExceeded) && !time.Now().Before(c.limit)
	c.late = c.late || slow
	c.mu.Unlock()
	if slow {
		c.l.reject(c.Peer, ErrSlow)
	}
}

// settle ends the wait for the first bytes. The caller holds mu.
func (c *Conn) settle() {
	if !c.settled.Swap(true) {
		c.l.idle.Leave()
		c.l.handshakes.Done()
	}
}

// SetDeadline calls SetReadDeadline and SetWriteDeadline.
func (c *Conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the deadline of reads. Until the first bytes have arrived, their
// deadline applies if it is earlier.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wanted = t
	return c.Conn.SetReadDeadline(c.readLimit(t))
}

// SetWriteDeadline sets the deadline of writes.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	if c.refusal != nil {
		t = earlier(t, c.limit)
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *Conn) readLimit(t time.Time) time.Time {
	if c.refusal != nil || !c.settled.Load() {
		return earlier(t, c.limit)
	}
	return t
}

// Close may be called more than once.
func (c *Conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.mu.Lock()
		c.settle()
		c.mu.Unlock()
		c.release()
		c.l.held.remove(c)
		c.l.open.Add(-1)
	})
	return err
}

// epoch is the reference of times in atomic variables. Unlike Unix times, differences to it do not
// depend on changes of the system clock.
var epoch = time.Now()

// StartCall marks the start of a call on the connection: while a call is in progress, the
// listener prefers to close other connections when it needs a slot.
func (c *Conn) StartCall() { c.calls.Add(1) }

// EndCall marks the end of a call, once for each StartCall.
func (c *Conn) EndCall() {
	c.used.Store(int64(time.Since(epoch)))
	c.calls.Add(-1)
}

// SyscallConn gives access to socket options. Reads through it bypass the limits.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	return c.Conn.(syscall.Conn).SyscallConn()
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// Peer is the process at the other end of a connection when it connected, identified
// by kernel peer credentials (unix(7), SO_PEERCRED). A process can pass a connected
// socket to another process, which then acts as this peer.
type Peer struct {
	UID, GID uint32   // effective IDs, mapped to this process's user namespace; 65534 for unmapped IDs
	PID      int32    // for log records only: the kernel reuses PIDs; 0 for processes outside our PID namespace
	Groups   []uint32 // supplementary groups; nil on kernels before 4.13
}

// Member reports whether gid is one of the peer's groups.
func (p Peer) Member(gid uint32) bool {
	return p.GID == gid || slices.Contains(p.Groups, gid)
}

// ErrNoPeer reports a connection for which the kernel returns no peer credentials.
var ErrNoPeer = errors.New("the kernel returned no peer credentials")

// PeerOf returns the kernel peer credentials of conn, a Unix socket. For a *Conn it
// returns the peer that was determined when the connection was accepted.
func PeerOf(conn net.Conn) (Peer, error) {
	if c, ok := conn.(*Conn); ok {
		return c.Peer, nil
	}
	s, ok := conn.(syscall.Conn)
	if !ok {
		return Peer{}, fmt.Errorf("%w: a %T is not a socket", ErrNoPeer, conn)
	}
	raw, err := s.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("get the peer credentials: %w", err)
	}
	var peer Peer
	var callErr error
	if err := raw.Control(func(fd uintptr) { peer, callErr = peerOfFD(int(fd)) }); err != nil {
		return Peer{}, fmt.Errorf("get the peer credentials: %w", err)
	}
	return peer, callErr
}

func peerOfFD(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrNoPeer, os.NewSyscallError("getsockopt SO_PEERCRED", err))
	}
	// Other kinds of sockets return IDs of -1.
	if cred.Uid == ^uint32(0) || cred.Gid == ^uint32(0) {
		return Peer{}, fmt.Errorf("%w: not a connected Unix socket", ErrNoPeer)
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Peer{}, err
	}
	return Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid, Groups: groups}, nil
}

// soPeerGroups is SO_PEERGROUPS of include/uapi/asm-generic/socket.h, which
// golang.org/x/sys does not have.
const soPeerGroups = 59

// peerGroups repeats the call with a larger buffer if the peer is in more groups than
// fit. The list belongs to the connection and does not change.
func peerGroups(fd int) ([]uint32, error) {
	var few [64]uint32
	groups := few[:]
	for {
		size := uint32(4 * len(groups)) // at most NGROUPS_MAX, 65536
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, soPeerGroups,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		n := int(size / 4)
		switch {
		case errno == 0 && n == 0, errno == unix.ENODATA, errno == unix.ENOPROTOOPT:
			return nil, nil
		case errno == 0:
			return append([]uint32(nil), groups[:n]...), nil
		case errno == unix.ERANGE && n > len(groups):
			groups = make([]uint32, n)
		case errno == unix.EINTR:
		default:
			return nil, os.NewSyscallError("getsockopt SO_PEERGROUPS", errno)
		}
	}
}
