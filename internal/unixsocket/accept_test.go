package unixsocket

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// One user fills its share; the others do not notice.
func TestConnectionsPerUser(t *testing.T) {
	f := newFakeSocket()
	var told []error
	log := new(logs)
	l := f.listener(t, Options{Log: log.logger(), Courtesy: 2,
		Limiter: NewLimiter(LimiterOptions{What: "connections", User: Share{Slots: 3}, Total: 6}),
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
	if s := l.Stats(); s.Accepted != 11 || s.Refused != 7 || s.Open != 6 || len(told) != 7 {
		t.Errorf("%+v, told %d times", s, len(told))
	}
	if !errors.Is(told[0], ErrLimit) {
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
	l := f.listener(t, Options{})
	client, server := net.Pipe()
	f.queue <- server // the fake does not know who
	f.connect(t, 7)
	if c := accept(t, l); c.Peer.UID != 7 {
		t.Errorf("%+v", c.Peer)
	}
	if _, err := client.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("without a peer: %v", err)
	}
	if s := l.Stats(); s.NoPeer != 1 || s.Open != 1 {
		t.Errorf("%+v", s)
	}
}

func TestOtherUserOverTheLimit(t *testing.T) {
	needRoot(t)
	l := listen(t, Options{Limiter: NewLimiter(LimiterOptions{User: Share{Slots: 1}})})
	socket := "SOCKET=" + l.Addr().String()
	first := start(t, "client", 4711, socket)
	held := accept(t, l)
	came := make(chan *Conn, 2)
	ended := make(chan error)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				ended <- err
				return
			}
			came <- c.(*Conn)
		}
	}()
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
	for !strings.Contains(log.String(), "LimitNOFILE") {
		time.Sleep(time.Millisecond) // the other goroutine is in accept
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
