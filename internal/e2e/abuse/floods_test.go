package abuse

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
)

const (
	createMethod  = "/datamovement.DataMover/Create"
	statusMethod  = "/datamovement.DataMover/Status"
	versionMethod = "/datamovement.DataMover/Version"
	listMethod    = "/datamovement.DataMover/List"
	watchMethod   = "/datamovement.v2.DataMover/Watch"
)

// floods are the actions of a user other than a single call.
var floods = map[string]func(*actor, order) result{
	"idle":    (*actor).idle,
	"slow":    (*actor).slow,
	"streams": (*actor).streams,
	"calls":   (*actor).calls,
	"guess":   (*actor).guess,
	"waits":   (*actor).waits,
	"poll":    (*actor).poll,
	"open":    (*actor).open,
	"drop":    (*actor).drop,
	"unread":  (*actor).unread,
	"insist":  (*actor).insist,
}

func (a *actor) connect(first []byte) (net.Conn, error) {
	c, err := net.Dial("unix", a.socket)
	if err != nil {
		return nil, err
	}
	_, err = c.Write(first) // fails if it is closed already
	return c, err
}

func (a *actor) hold(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held = append(a.held, c)
}

// idle opens N connections, sends only the HTTP/2 preface, and holds them.
func (a *actor) idle(o order) result {
	var t tally
	for range o.N {
		c, err := a.connect(hello())
		if c != nil {
			a.hold(c)
		}
		if err != nil {
			t.add("cut")
			continue
		}
		t.add("connected")
	}
	return t.result()
}

// slow sends half of the first bytes on N connections, and waits until they are closed.
func (a *actor) slow(o order) result {
	var t tally
	var all sync.WaitGroup
	for range o.N {
		all.Go(func() {
			start := time.Now()
			c, err := a.connect([]byte(preface[:12]))
			if err != nil {
				t.add("cut")
				return
			}
			defer c.Close()
			if ended(c, o.Limit) {
				t.add("closed")
				t.mu.Lock()
				t.times = append(t.times, time.Since(start))
				t.mu.Unlock()
			} else {
				t.add("still open")
			}
		})
	}
	all.Wait()
	return t.result()
}

// unread sends N requests on some connections with the largest flow-control windows, and
// reads no response; with Slow, it reads a few bytes at times.
func (a *actor) unread(o order) result {
	const most = 128
	var t tally
	var conn net.Conn
	for i := range o.N {
		if i%most == 0 {
			c, err := a.connect(greedy())
			if err != nil {
				t.add("cut")
				continue
			}
			a.hold(c)
			if o.Slow {
				go dribble(c)
			}
			conn = c
			_ = c.SetWriteDeadline(time.Now().Add(o.Limit))
		}
		if _, err := conn.Write(whole(uint32(2*(i%most)+1), o.Method, o.Body)); err != nil {
			t.add("cut")
			continue
		}
		t.add("sent")
	}
	return t.result()
}

// dribble reads a connection slowly until it is closed.
func dribble(c net.Conn) {
	buffer := make([]byte, 512)
	for tick := time.NewTicker(20 * time.Millisecond); ; <-tick.C {
		if _, err := c.Read(buffer); err != nil {
			tick.Stop()
			return
		}
	}
}

// insist repeats the same call, many times concurrently, for the duration of Limit.
func (a *actor) insist(o order) result {
	var t tally
	var all sync.WaitGroup
	end := time.Now().Add(o.Limit)
	each := o
	each.Limit = callLimit
	for range 32 {
		all.Go(func() {
			for time.Now().Before(end) {
				start := time.Now()
				_, err := call(a.conn, each)
				t.call(err, time.Since(start))
			}
		})
	}
	all.Wait()
	return t.result()
}

// perConnection is how many concurrent requests the daemon accepts on one connection.
const perConnection = 256

// streams starts the maximum number of requests on each of N connections, sends nearly as
// much of each as the flow-control window allows, and never ends them.
func (a *actor) streams(o order) result {
	var t tally
	var all sync.WaitGroup
	for range o.N {
		all.Go(func() {
			c, err := a.connect(hello())
			if err != nil {
				t.add("cut")
				return
			}
			a.hold(c)
			go ended(c, time.Hour) // reads all responses
			_ = c.SetWriteDeadline(time.Now().Add(o.Limit))
			for i := range uint32(perConnection) {
				stream := 2*i + 1
				if _, err := c.Write(append(headers(stream, createMethod), message(stream, 200<<10, 60<<10)...)); err != nil {
					t.add("cut")
					return
				}
			}
			t.add("taken")
		})
	}
	all.Wait()
	return t.result()
}

// spread makes N calls as fast as possible, on as many connections as necessary.
func (a *actor) spread(o order, each func(conn *grpc.ClientConn, i int) error) result {
	const most = 128 // less than perConnection: clients would wait beyond
	var t tally
	var all sync.WaitGroup
	var conn *grpc.ClientConn
	for i := range o.N {
		if i%most == 0 {
			var err error
			if conn, err = a.dial(); err != nil {
				t.add(err.Error())
				break
			}
			defer conn.Close()
		}
		its := conn
		all.Go(func() {
			start := time.Now()
			err := each(its, i)
			t.call(err, time.Since(start))
		})
	}
	all.Wait()
	return t.result()
}

// calls makes the same call N times concurrently.
func (a *actor) calls(o order) result {
	return a.spread(o, func(conn *grpc.ClientConn, _ int) error {
		_, err := call(conn, o)
		return err
	})
}

// guess requests N names that could exist.
func (a *actor) guess(o order) result {
	return a.spread(o, func(conn *grpc.ClientConn, i int) error {
		o := o
		o.Method, o.Body = statusMethod, statusBody(fmt.Sprintf("nnf-dm-node-%05d", i), 0)
		_, err := call(conn, o)
		return err
	})
}

// waits starts N waits without limit for the same movement.
func (a *actor) waits(o order) result {
	return a.spread(o, func(conn *grpc.ClientConn, _ int) error {
		o := o
		o.Method, o.Body = statusMethod, statusBody(o.UID, -1)
		_, err := call(conn, o)
		return err
	})
}

// poll polls the status of a movement, like a job, for the duration of Limit.
func (a *actor) poll(o order) result {
	var t tally
	o.Method, o.Body = statusMethod, statusBody(o.UID, 0)
	end := time.Now().Add(o.Limit)
	for now := range time.Tick(2 * time.Millisecond) {
		if now.After(end) {
			break
		}
		each := o
		each.Limit = 10 * time.Second
		start := time.Now()
		_, err := call(a.conn, each)
		t.call(err, time.Since(start))
	}
	return t.result()
}

func statusBody(uid string, wait int64) []byte {
	body, _ := proto.Marshal(&pb.DataMovementStatusRequest{Uid: uid, MaxWaitTime: wait}) // cannot fail for UTF-8 texts
	return body
}

// open counts the held connections that the daemon has not closed.
func (a *actor) open(order) result {
	a.mu.Lock()
	defer a.mu.Unlock()
	var t tally
	for _, c := range a.held {
		if isOpen(c.(net.Conn)) {
			t.add("open")
		} else {
			t.add("closed")
		}
	}
	return t.result()
}

// drop closes the held connections.
func (a *actor) drop(order) result {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.held {
		c.Close()
	}
	a.held = nil
	return result{}
}

// HTTP/2 frames (RFC 9113), for sequences that no library sends.

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

const (
	frameData         = 0
	frameHeaders      = 1
	frameSettings     = 4
	frameWindowUpdate = 8

	flagEndStream  = 1
	flagEndHeaders = 4
)

func frame(kind, flags byte, stream uint32, payload []byte) []byte {
	b := []byte{byte(len(payload) >> 16), byte(len(payload) >> 8), byte(len(payload)), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// hello returns the first bytes of a client.
func hello() []byte { return append([]byte(preface), frame(frameSettings, 0, 0, nil)...) }

// headers returns the frame that starts a request. All fields are literals (RFC 7541, 6.2.2).
func headers(stream uint32, method string) []byte {
	var block []byte
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "localhost"},
		{"content-type", "application/grpc"}, {"te", "trailers"},
	} {
		block = append(block, 0, byte(len(f[0])))
		block = append(block, f[0]...)
		block = append(block, byte(len(f[1])))
		block = append(block, f[1]...)
	}
	return frame(frameHeaders, flagEndHeaders, stream, block)
}

// message returns the first bytes of a message: size is the size in its header, sent the
// number of bytes that follow.
func message(stream uint32, size uint32, sent int) []byte {
	payload := make([]byte, 0, 5+sent)
	payload = append(payload, 0)
	payload = binary.BigEndian.AppendUint32(payload, size)
	payload = append(payload, make([]byte, sent)...)
	var out []byte
	for len(payload) > 0 {
		n := min(len(payload), 16<<10)
		out = append(out, frame(frameData, 0, stream, payload[:n])...)
		payload = payload[n:]
	}
	return out
}

// isOpen reports whether the peer has not closed a connection. It discards received data.
func isOpen(c net.Conn) bool {
	raw, err := c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return false
	}
	open := false
	buffer := make([]byte, 4096)
	_ = raw.Control(func(fd uintptr) {
		for {
			n, _, err := unix.Recvfrom(int(fd), buffer, unix.MSG_DONTWAIT)
			if n <= 0 || err != nil {
				open = err == unix.EAGAIN
				return
			}
		}
	})
	return open
}

// ended waits until the peer has closed a connection.
func ended(c net.Conn, limit time.Duration) bool {
	_ = c.SetReadDeadline(time.Now().Add(limit))
	buffer := make([]byte, 4096)
	for {
		_, err := c.Read(buffer)
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			return false
		}
		if err != nil {
			return true
		}
	}
}
