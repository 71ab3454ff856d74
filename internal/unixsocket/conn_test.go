package unixsocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestFirstBytesInTime(t *testing.T) {
	const limit = 10 * time.Second
	type event struct {
		after time.Duration
		send  string
	}
	for _, tt := range []struct {
		name     string
		bytes    int
		deadline time.Duration // set by the server after Accept; 0: none
		events   []event
		ends     time.Duration // when a read fails; 0: not within an hour
		slow     int
	}{
		{"silent", 0, 0, nil, limit, 1},
		{"silent with the server's earlier deadline", 0, time.Second, nil, time.Second, 0},
		{"silent with the server's later deadline", 0, time.Minute, nil, limit, 1},
		{"one byte of one", 0, 0, []event{{0, "x"}}, 0, 0},
		{"just in time", 4, 0, []event{{limit - 1, "four"}}, 0, 0},
		{"a byte per second", 24, 0, []event{{1e9, "x"}, {1e9, "x"}, {1e9, "x"}, {6e9, "x"}}, limit, 1},
		{"enough, in parts", 4, 0, []event{{1e9, "x"}, {8e9, "xxx"}}, 0, 0},
		{"then the server's deadline applies", 1, time.Minute, []event{{1e9, "x"}}, time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeAcceptor()
				var rejected []error
				l := f.listener(t, Options{Handshake: limit, HandshakeBytes: tt.bytes,
					Rejected: func(_ Peer, err error) { rejected = append(rejected, err) }})
				client := f.connect(t, 7)
				c := accept(t, l)
				start := time.Now()
				if tt.deadline != 0 {
					if err := c.SetDeadline(start.Add(tt.deadline)); err != nil {
						t.Fatal(err)
					}
				}
				go func() {
					for _, e := range tt.events {
						<-time.After(e.after)
						client.Write([]byte(e.send))
					}
					select {
					case <-time.After(time.Hour):
					case <-t.Context().Done():
					}
					client.Close()
				}()
				_, err := io.Copy(io.Discard, c)
				c.Read(make([]byte, 1)) // reported only once
				took := time.Since(start)
				switch {
				case tt.ends == 0 && (err != nil || took < time.Hour):
					t.Errorf("ended after %v: %v", took, err)
				case tt.ends != 0 && (!errors.Is(err, os.ErrDeadlineExceeded) || took != tt.ends):
					t.Errorf("ended after %v, want %v: %v", took, tt.ends, err)
				}
				if len(rejected) != tt.slow || tt.slow > 0 && rejected[0] != ErrSlow {
					t.Errorf("reported %v", rejected)
				}
				client.Close()
			})
		})
	}
}

func TestNoHandshakeLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeAcceptor()
		l := f.listener(t, Options{Handshake: -1})
		client := f.connect(t, 7)
		c := accept(t, l)
		go func() {
			<-time.After(24 * time.Hour)
			client.Write([]byte("x"))
		}()
		if n, err := c.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
}

// A connection above the limit is closed in time, whatever deadlines the server sets and
// whatever the client sends.
func TestRefusedConnectionEnds(t *testing.T) {
	for _, handshake := range []time.Duration{5 * time.Second, -1} {
		synctest.Test(t, func(t *testing.T) {
			f := newFakeAcceptor()
			slow := false
			l := f.listener(t, Options{Handshake: handshake, OverLimit: 1, Limiter: NewLimiter(LimiterOptions{User: Quota{Slots: 1}}),
				Rejected: func(_ Peer, err error) { slow = slow || err == ErrSlow }})
			f.connect(t, 7)
			if c := accept(t, l); c.Refused() != nil {
				t.Fatal(c.Refused())
			}
			client := f.connect(t, 7)
			c := accept(t, l)
			var limit *LimitError
			if !errors.As(c.Refused(), &limit) || limit.UID != 7 || limit.Limit != 1 {
				t.Fatalf("got %v", c.Refused())
			}
			start, want := time.Now(), handshake
			if want < 0 {
				want = defaultHandshake
			}
			go func() {
				for {
					if _, err := client.Write([]byte("x")); err != nil {
						return
					}
					select {
					case <-time.After(time.Second):
					case <-t.Context().Done():
						return
					}
				}
			}()
			for _, set := range []func(time.Time) error{c.SetDeadline, c.SetReadDeadline, c.SetWriteDeadline} {
				set(start.Add(time.Hour))
				set(time.Time{})
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != want {
				t.Errorf("reads until %v, %v", time.Since(start), err)
			}
			if _, err := c.Write([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("write: %v", err)
			}
			c.Close()
			if slow {
				t.Error("reported as slow")
			}
		})
	}
}

func TestCloseTwiceReleasesOneSlot(t *testing.T) {
	limiter := NewLimiter(LimiterOptions{})
	idle := NewIdle(0, func() {})
	l := listen(t, Options{Limiter: limiter, Idle: idle})
	dial(t, l)
	dial(t, l)
	a, _ := accept(t, l), accept(t, l)
	for range 3 {
		a.Close()
	}
	if _, all := limiter.InUse(0); all != 1 || l.Open() != 1 || !idle.Busy() {
		t.Errorf("%d slots, %d open, busy %v", all, l.Open(), idle.Busy())
	}
}

func TestSyscallConn(t *testing.T) {
	l := listen(t, Options{})
	dial(t, l)
	raw, err := accept(t, l).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var p Peer
	raw.Control(func(fd uintptr) { p, err = peerOfFD(int(fd)) })
	if err != nil || p.PID != int32(os.Getpid()) {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestEarlier(t *testing.T) {
	var never time.Time
	a, b := time.Unix(1, 0), time.Unix(2, 0)
	for _, tt := range [][3]time.Time{{a, b, a}, {b, a, a}, {never, b, b}, {a, never, a}, {never, never, never}} {
		if got := earlier(tt[0], tt[1]); !got.Equal(tt[2]) {
			t.Errorf("earlier(%v, %v) = %v", tt[0], tt[1], got)
		}
	}
}

func TestPeerIsConnectingProcess(t *testing.T) {
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
		c.Write([]byte("hi"))
		client.want(`answer "hi"`)
	}
}

func TestPeerOfSameProcess(t *testing.T) {
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

// More groups than fit into the first buffer: root can set up to NGROUPS_MAX groups.
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

// connectWithGroups connects from a thread with these groups: the system call, unlike
// syscall.Setgroups, changes one thread only. The thread exits with the goroutine, because
// the goroutine stays locked to it.
func connectWithGroups(path string, groups []uint32) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		result <- func() error {
			var first unsafe.Pointer
			if len(groups) > 0 {
				first = unsafe.Pointer(&groups[0])
			}
			if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(first), 0); errno != 0 {
				return errno
			}
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}()
	}()
	return <-result
}
