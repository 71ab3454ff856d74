package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// One user fills its quota; the others do not notice.
func TestConnectionsPerUser(t *testing.T) {
	f := newFakeSocket()
	var told []error
	log := new(logs)
	l := f.listener(t, Options{Log: log.logger(), OverLimit: 2,
		Limiter: NewLimiter(LimiterOptions{What: "connections", User: Quota{Slots: 3}, Total: 6}),
		Turned:  func(p Peer, err error) { told = append(told, fmt.Errorf("%d: %w", p.UID, err)) }})
	var clients []net.Conn
	for range 10 {
		clients = append(clients, f.connect(t, 7))
	}
	f.connect(t, 8)
	var got []string
	var conns []*Conn
	for range 6 {
		c := accept(t, l)
		conns = append(conns, c)
		got = append(got, fmt.Sprint(c.Peer.UID, c.Refused() != nil))
	}
	if want := "7 false,7 false,7 false,7 true,7 true,8 false"; strings.Join(got, ",") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if l.Open() != 6 || len(told) != 7 {
		t.Errorf("%d open, told %d times", l.Open(), len(told))
	}
	if _, ok := errors.AsType[*LimitError](told[0]); !ok {
		t.Error(told[0])
	}
	if n := strings.Count(log.String(), "turned away"); n != 1 {
		t.Errorf("%d lines for 7 refusals within the same moment:\n%s", n, log)
	}
	for _, c := range clients[5:] {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("over the limit: %v, want the end", err)
		}
	}
	// A place that is given back is there at once.
	conns[0].Close()
	f.connect(t, 7)
	if c := accept(t, l); c.Refused() != nil {
		t.Error(c.Refused())
	}
}

func TestNoPeerIsTurnedAway(t *testing.T) {
	f := newFakeSocket()
	var told []error
	l := f.listener(t, Options{Turned: func(_ Peer, err error) { told = append(told, err) }})
	client, server := net.Pipe()
	f.queue <- server // the fake does not know who
	f.connect(t, 7)
	if c := accept(t, l); c.Peer.UID != 7 {
		t.Errorf("%+v", c.Peer)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("without a peer: %v", err)
	}
	if len(told) != 1 || !errors.Is(told[0], ErrNoPeer) || l.Open() != 1 {
		t.Errorf("told %v, %d open", told, l.Open())
	}
}

func TestOtherUserOverTheLimit(t *testing.T) {
	needRoot(t)
	l := listen(t, Options{Limiter: NewLimiter(LimiterOptions{User: Quota{Slots: 1}})})
	socket := "SOCKET=" + l.Addr().String()
	first := start(t, "client", 4711, socket)
	held := accept(t, l)
	came, ended := acceptAll(l)
	start(t, "client", 4711, socket).want(`answer ""`)
	other := start(t, "client", 4712, socket)
	c := <-came
	if c.Peer.UID != 4712 {
		t.Errorf("%+v came in", c.Peer)
	}
	c.Write([]byte("ok"))
	other.want(`answer "ok"`)
	held.Write([]byte("ok"))
	first.want(`answer "ok"`)
	c.Close()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

func TestBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFakeSocket()
		log := new(logs)
		l := f.listener(t, Options{Log: log.logger()})
		begin := time.Now()
		for i := range 12 {
			f.queue <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}[i%4])}
		}
		f.connect(t, 7)
		accept(t, l)
		// 5 ms, doubled up to 1 s: 5 × (2⁸ − 1) ms, and four times the most.
		if got, want := time.Since(begin), 1275*time.Millisecond+4*time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		if n := strings.Count(log.String(), "LimitNOFILE"); n != 1 {
			t.Errorf("%d log lines", n)
		}
		f.queue <- unix.EMFILE
		waiting := make(chan error)
		go func() { _, err := l.Accept(); waiting <- err }()
		synctest.Wait()
		begin = time.Now()
		l.Close()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) || time.Since(begin) != 0 {
			t.Errorf("Close during the back-off: %v after %v", err, time.Since(begin))
		}
	})
}

func TestBrokenListener(t *testing.T) {
	f := newFakeSocket()
	l := f.listener(t, Options{})
	f.queue <- unix.EINVAL
	if _, err := l.Accept(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

// helperExhausted has no descriptors left, until its parent has seen that it is
// alive nevertheless.
func helperExhausted() error {
	log := new(logs)
	l, err := Listen(Options{Path: os.Getenv("SOCKET"), Log: log.logger()})
	if err != nil {
		return err
	}
	defer l.Close()
	// Go starts threads and pollers before the limit is reached, not after.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: 64}); err != nil {
		return err
	}
	var hoard []int
	for {
		fd, err := syscall.Dup(0)
		if err != nil {
			break
		}
		hoard = append(hoard, fd)
	}
	accepted := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write([]byte("ok"))
			c.Close()
		}
		accepted <- err
	}()
	fmt.Println("exhausted")
	proceed() // the client has connected
	reported := func() (bool, error) { return strings.Contains(log.String(), "LimitNOFILE"), nil }
	if err := wait.For(context.Background(), "the report that descriptors are missing", reported); err != nil {
		return err
	}
	for _, fd := range hoard {
		syscall.Close(fd)
	}
	return <-accepted
}

func TestOutOfDescriptors(t *testing.T) {
	path := directory(t) + "/s"
	p := start(t, "exhausted", 0, "SOCKET="+path)
	p.want("exhausted")
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p.in.Close()
	if got, err := io.ReadAll(c); string(got) != "ok" {
		t.Errorf("got %q, %v", got, err)
	}
}

// crowd is a listener whose clients come as the test says.
type crowd struct {
	t     *testing.T
	f     *fakeSocket
	l     *Listener
	conns map[string]*Conn // "7a": uid and a letter
	count map[uint32]int
}

func (c *crowd) come(uids ...uint32) {
	c.t.Helper()
	for _, uid := range uids {
		c.f.connect(c.t, uid)
		conn := accept(c.t, c.l)
		if conn.Peer.UID != uid {
			c.t.Fatalf("%d came in, not %d", conn.Peer.UID, uid)
		}
		name := fmt.Sprintf("%d%c", uid, 'a'+c.count[uid])
		c.count[uid]++
		c.conns[name] = conn
		wait.Advance(time.Second)
	}
}

// here are those that are not closed.
func (c *crowd) here() string {
	var names []string
	for name, conn := range c.conns {
		if conn.Refused() == nil {
			c.l.held.mu.Lock()
			if _, in := c.l.held.users[conn.Peer.UID][conn]; in {
				names = append(names, name)
			}
			c.l.held.mu.Unlock()
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// When all slots are taken, users with fewer get those of users with
// most: the longest idle first, and none with a call while there are others.
func TestEviction(t *testing.T) {
	for name, tt := range map[string]struct {
		before  []uint32
		prepare func(c *crowd)
		comes   []uint32
		want    string
	}{
		"the longest idle of the largest holder": {
			before: []uint32{8, 7, 7, 7}, comes: []uint32{9}, want: "7b 7c 8a 9a",
		},
		"one that was used lately stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].Begin(); c.conns["7a"].End() },
			comes:   []uint32{9}, want: "7a 7c 8a 9a",
		},
		"one with a call stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].Begin(); c.conns["7b"].Begin() },
			comes:   []uint32{9}, want: "7a 7b 8a 9a",
		},
		"unless all have calls": {
			before: []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) {
				for _, n := range []string{"7a", "7b", "7c"} {
					c.conns[n].Begin()
				}
			},
			comes: []uint32{9}, want: "7b 7c 8a 9a",
		},
		"until all have as many": {
			before: []uint32{7, 7, 7, 7}, comes: []uint32{8, 8, 8}, want: "7c 7d 8a 8b",
		},
		"no user has more than one: an idle one": {
			before: []uint32{1, 2, 3, 4}, comes: []uint32{9}, want: "2a 3a 4a 9a",
		},
		"no user has more than one, all with calls": {
			before: []uint32{1, 2, 3, 4},
			prepare: func(c *crowd) {
				for _, conn := range c.conns {
					conn.Begin()
				}
			},
			comes: []uint32{9}, want: "1a 2a 3a 4a",
		},
		"the largest holder replaces no other user": {
			before: []uint32{8, 7, 7, 7}, comes: []uint32{7}, want: "7a 7b 7c 8a",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFakeSocket()
				log := new(logs)
				c := &crowd{t: t, f: f, conns: map[string]*Conn{}, count: map[uint32]int{}}
				c.l = f.listener(t, Options{Log: log.logger(), OverLimit: 1, Handshake: -1, Limiter: NewLimiter(LimiterOptions{What: "connections", Total: 4})})
				c.come(tt.before...)
				if tt.prepare != nil {
					tt.prepare(c)
				}
				c.come(tt.comes...)
				if got := c.here(); got != tt.want {
					t.Errorf("%s stay, want %s", got, tt.want)
				}
				evicted := -len(strings.Fields(c.here()))
				for _, conn := range c.conns {
					if conn.Refused() == nil {
						evicted++
					}
				}
				if evicted > 0 != strings.Contains(log.String(), "closed to make room") {
					t.Errorf("%d evicted, %s", evicted, log)
				}
				for _, conn := range c.conns {
					conn.Close()
				}
				if len(c.l.held.users) != 0 {
					t.Errorf("%v stay", c.l.held.users)
				}
			})
		})
	}
}

// The client of a connection that is closed sees its end.
func TestEvictionEnds(t *testing.T) {
	f := newFakeSocket()
	l := f.listener(t, Options{Limiter: NewLimiter(LimiterOptions{What: "connections", Total: 2})})
	idle := f.connect(t, 7)
	f.connect(t, 7)
	accept(t, l)
	accept(t, l)
	f.connect(t, 8)
	if c := accept(t, l); c.Peer.UID != 8 || c.Refused() != nil {
		t.Errorf("%+v: %v", c.Peer, c.Refused())
	}
	if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the idle connection: %v", err)
	}
}
