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

// A user who reaches the limit does not affect other users.
func TestConnectionsPerUser(t *testing.T) {
	f := newFakeAcceptor()
	var rejected []error
	log := new(logs)
	l := f.listener(t, Options{Log: log.logger(), OverLimit: 2,
		Limiter:  NewLimiter(LimiterOptions{What: "connections", User: Quota{Slots: 3}, Total: 6}),
		Rejected: func(p Peer, err error) { rejected = append(rejected, fmt.Errorf("%d: %w", p.UID, err)) }})
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
	if l.Open() != 6 || len(rejected) != 7 {
		t.Errorf("%d open, %d reported", l.Open(), len(rejected))
	}
	if _, ok := errors.AsType[*LimitError](rejected[0]); !ok {
		t.Error(rejected[0])
	}
	if n := strings.Count(log.String(), "connection rejected"); n != 1 {
		t.Errorf("%d lines for 7 refusals at the same time:\n%s", n, log)
	}
	for _, c := range clients[5:] {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("above the limit: %v, want a closed connection", err)
		}
	}
	// A released slot is available immediately.
	conns[0].Close()
	f.connect(t, 7)
	if c := accept(t, l); c.Refused() != nil {
		t.Error(c.Refused())
	}
}

func TestNoPeerIsRejected(t *testing.T) {
	f := newFakeAcceptor()
	var rejected []error
	l := f.listener(t, Options{Rejected: func(_ Peer, err error) { rejected = append(rejected, err) }})
	client, server := net.Pipe()
	f.queue <- server // the fake has no peer for it
	f.connect(t, 7)
	if c := accept(t, l); c.Peer.UID != 7 {
		t.Errorf("%+v", c.Peer)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("without a peer: %v", err)
	}
	if len(rejected) != 1 || !errors.Is(rejected[0], ErrNoPeer) || l.Open() != 1 {
		t.Errorf("reported %v, %d open", rejected, l.Open())
	}
}

func TestOtherUserAboveLimit(t *testing.T) {
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
		t.Errorf("%+v was accepted", c.Peer)
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
		f := newFakeAcceptor()
		log := new(logs)
		l := f.listener(t, Options{Log: log.logger()})
		start := time.Now()
		for i := range 12 {
			f.queue <- &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}[i%4])}
		}
		f.connect(t, 7)
		accept(t, l)
		// 5 ms, doubled up to 1 s: 5 × (2⁸ − 1) ms, and four times the maximum.
		if got, want := time.Since(start), 1275*time.Millisecond+4*time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		if n := strings.Count(log.String(), "LimitNOFILE"); n != 1 {
			t.Errorf("%d log lines", n)
		}
		f.queue <- unix.EMFILE
		waiting := make(chan error)
		go func() { _, err := l.Accept(); waiting <- err }()
		synctest.Wait()
		start = time.Now()
		l.Close()
		if err := <-waiting; !errors.Is(err, net.ErrClosed) || time.Since(start) != 0 {
			t.Errorf("Close during the back-off: %v after %v", err, time.Since(start))
		}
	})
}

func TestBrokenListener(t *testing.T) {
	f := newFakeAcceptor()
	l := f.listener(t, Options{})
	f.queue <- unix.EINVAL
	if _, err := l.Accept(); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v", err)
	}
}

// helperExhausted has no free descriptors until its parent has seen that it still runs.
func helperExhausted() error {
	log := new(logs)
	l, err := Listen(Options{Path: os.Getenv("SOCKET"), Log: log.logger()})
	if err != nil {
		return err
	}
	defer l.Close()
	// Go must start threads and pollers before the limit is reached.
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

// crowd is a listener with clients that the test controls.
type crowd struct {
	t     *testing.T
	f     *fakeAcceptor
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
			c.t.Fatalf("accepted uid %d, want %d", conn.Peer.UID, uid)
		}
		name := fmt.Sprintf("%d%c", uid, 'a'+c.count[uid])
		c.count[uid]++
		c.conns[name] = conn
		wait.Advance(time.Second)
	}
}

// here returns the names of the open connections.
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

// When all slots are in use, users with fewer connections get slots of the user with the
// most: the longest idle connection first, one with a call only if there is no other.
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
		"a recently used one stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].StartCall(); c.conns["7a"].EndCall() },
			comes:   []uint32{9}, want: "7a 7c 8a 9a",
		},
		"one with a call stays": {
			before:  []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) { c.conns["7a"].StartCall(); c.conns["7b"].StartCall() },
			comes:   []uint32{9}, want: "7a 7b 8a 9a",
		},
		"unless all have calls": {
			before: []uint32{8, 7, 7, 7},
			prepare: func(c *crowd) {
				for _, n := range []string{"7a", "7b", "7c"} {
					c.conns[n].StartCall()
				}
			},
			comes: []uint32{9}, want: "7b 7c 8a 9a",
		},
		"until all have the same number": {
			before: []uint32{7, 7, 7, 7}, comes: []uint32{8, 8, 8}, want: "7c 7d 8a 8b",
		},
		"no user has more than one: an idle one": {
			before: []uint32{1, 2, 3, 4}, comes: []uint32{9}, want: "2a 3a 4a 9a",
		},
		"no user has more than one, all with calls": {
			before: []uint32{1, 2, 3, 4},
			prepare: func(c *crowd) {
				for _, conn := range c.conns {
					conn.StartCall()
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
				f := newFakeAcceptor()
				log := new(logs)
				c := &crowd{t: t, f: f, conns: map[string]*Conn{}, count: map[uint32]int{}}
				c.l = f.listener(t, Options{Log: log.logger(), OverLimit: 1, Handshake: -1, Limiter: NewLimiter(LimiterOptions{What: "connections", Total: 4})})
				c.come(tt.before...)
				if tt.prepare != nil {
					tt.prepare(c)
				}
				c.come(tt.comes...)
				if got := c.here(); got != tt.want {
					t.Errorf("%s remain, want %s", got, tt.want)
				}
				evicted := -len(strings.Fields(c.here()))
				for _, conn := range c.conns {
					if conn.Refused() == nil {
						evicted++
					}
				}
				if evicted > 0 != strings.Contains(log.String(), "closed to free a slot") {
					t.Errorf("%d evicted, %s", evicted, log)
				}
				for _, conn := range c.conns {
					conn.Close()
				}
				if len(c.l.held.users) != 0 {
					t.Errorf("%v remain", c.l.held.users)
				}
			})
		})
	}
}

// The client of an evicted connection sees that it is closed.
func TestEvictedClient(t *testing.T) {
	f := newFakeAcceptor()
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
