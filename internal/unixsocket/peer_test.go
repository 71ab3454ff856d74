package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPeerIsWhoConnected(t *testing.T) {
	needRoot(t)
	l := listen(t, Options{})
	for _, uid := range []uint32{4711, 65534} {
		client := start(t, "client", uid, "SOCKET="+l.Addr().String())
		c := accept(t, l)
		got := c.Peer
		slices.Sort(got.Groups)
		if got.UID != uid || got.GID != uid+1 || got.PID != int32(client.cmd.Process.Pid) || !slices.Equal(got.Groups, []uint32{uid + 2, uid + 3}) {
			t.Errorf("uid %d, pid %d: got %+v", uid, client.cmd.Process.Pid, got)
		}
		for gid, want := range map[uint32]bool{uid: false, uid + 1: true, uid + 3: true, 0: false} {
			if got.Member(gid) != want {
				t.Errorf("Member(%d) is %v", gid, !want)
			}
		}
		if got.Root() {
			t.Error("taken for root")
		}
		c.Write([]byte("hi"))
		client.want(`answer "hi"`)
	}
}

func TestPeerOfOurselves(t *testing.T) {
	l := listen(t, Options{})
	dial(t, l)
	c := accept(t, l)
	if p, err := PeerOf(c); err != nil || p.UID != uint32(os.Getuid()) || p.PID != int32(os.Getpid()) {
		t.Errorf("got %+v, %v", p, err)
	}
	if p, err := PeerOf(c.Conn); err != nil || p.UID != c.Peer.UID || p.PID != c.Peer.PID {
		t.Errorf("of the bare connection: %+v, %v", p, err)
	}
}

// More groups than the first question has room for: root may set as many as
// there can be.
func TestPeerInManyGroups(t *testing.T) {
	needRoot(t)
	for _, n := range []int{0, 1, 64, 65, 1000, 65536} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			want := make([]uint32, n)
			for i := range want {
				want[i] = uint32(10000 + i)
			}
			l := listen(t, Options{})
			done := make(chan error, 1)
			go func() { done <- connectWithGroups(l.Addr().String(), want) }()
			c := accept(t, l)
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(c.Peer.Groups, want) {
				t.Errorf("got %d groups, want %d", len(c.Peer.Groups), n)
			}
			if n == 0 && c.Peer.Groups != nil {
				t.Error("no groups is not nil")
			}
		})
	}
}

func TestNoPeer(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	overTCP, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer overTCP.Close()
	pipe, other := net.Pipe()
	defer pipe.Close()
	defer other.Close()
	for _, c := range []net.Conn{overTCP, pipe} {
		if p, err := PeerOf(c); !errors.Is(err, ErrNoPeer) {
			t.Errorf("%T: %+v, %v", c, p, err)
		}
	}
	l := listen(t, Options{})
	dial(t, l)
	closed := accept(t, l).Conn
	closed.Close()
	if p, err := PeerOf(closed); err == nil {
		t.Errorf("closed: %+v", p)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if p, err := peerOfFD(fd); !errors.Is(err, ErrNoPeer) {
		t.Errorf("not connected: %+v, %v", p, err)
	}
}
