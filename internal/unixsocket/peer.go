package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Peer is who was at the other end of a connection when it connected, by the
// kernel's word (unix(7), SO_PEERCRED). A process may hand a connected socket
// to another, which then acts as this peer.
type Peer struct {
	UID, GID uint32   // effective ids, as this process's user namespace sees them; 65534 for ids that it does not know
	PID      int32    // for the log alone: the process may be gone and the number used again; 0 outside our PID namespace
	Groups   []uint32 // supplementary groups; nil on kernels before 4.13
}

// Root reports whether the peer is the superuser.
func (p Peer) Root() bool { return p.UID == 0 }

// Member reports whether gid is one of the peer's groups.
func (p Peer) Member(gid uint32) bool {
	if p.GID == gid {
		return true
	}
	for _, g := range p.Groups {
		if g == gid {
			return true
		}
	}
	return false
}

// ErrNoPeer is in the errors of connections whose peer the kernel does not name.
var ErrNoPeer = errors.New("the kernel does not say who is at the other end")

// PeerOf asks the kernel who is at the other end of conn: a Unix socket, or a
// *Conn, which was asked about when it was accepted.
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
		return Peer{}, fmt.Errorf("ask for the peer: %w", err)
	}
	var peer Peer
	var asked error
	if err := raw.Control(func(fd uintptr) { peer, asked = peerOfFD(int(fd)) }); err != nil {
		return Peer{}, fmt.Errorf("ask for the peer: %w", err)
	}
	return peer, asked
}

func peerOfFD(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, fmt.Errorf("%w: %w", ErrNoPeer, os.NewSyscallError("getsockopt SO_PEERCRED", err))
	}
	// Every other kind of socket answers too, with nobody's ids.
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

// peerGroups asks twice when the peer is in more groups than most people. The
// list belongs to the connection and cannot grow between the questions.
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
