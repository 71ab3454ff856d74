package server

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// gRPC must return the buffer of the smallest encoded response to the pool.
func TestLeastBuffer(t *testing.T) {
	if mem.IsBelowBufferPoolingThreshold(leastBuffer) {
		t.Errorf("buffers of %d bytes are not returned to the pool", leastBuffer)
	}
}

// Responses wait for free memory, within their part of the limit, and their memory is
// released with their call or connection.
func TestCharge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &meters{most: 1000, over: func(identity) {}}
		_, c, m := metered(a, 7)
		_, c2, _ := metered(a, 7)
		first, second := &charge{conn: c.(*meteredConn)}, &charge{conn: c2.(*meteredConn)}
		ctx := t.Context()
		held := func(want int64) {
			t.Helper()
			if m.held != want || a.sum != want {
				t.Errorf("%d bytes are held, %d by all users, want %d", m.held, a.sum, want)
			}
		}
		if err := first.take(ctx, 700); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		if err := second.take(ctx, 100); !errors.Is(err, errNoMemory) || time.Since(start) != spaceWait {
			t.Errorf("no free memory: %v after %v", err, time.Since(start))
		}
		if err := second.take(ctx, 800); !errors.Is(err, errNoMemory) || time.Since(start) != spaceWait {
			t.Errorf("above the limit: %v after %v", err, time.Since(start))
		}
		held(700)
		time.AfterFunc(time.Second, func() { first.give(100) })
		start = time.Now()
		if err := second.take(ctx, 100); err != nil || time.Since(start) != time.Second {
			t.Errorf("memory freed after a second: %v after %v", err, time.Since(start))
		}
		held(700)
		gone, cancel := context.WithCancel(ctx)
		time.AfterFunc(time.Second, func() { cancel() })
		if err := second.take(gone, 100); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled call: %v", err)
		}
		refused := 0
		for range 2 * waitingAnswers {
			go func() {
				start := time.Now()
				if err := second.take(ctx, 200); errors.Is(err, errNoMemory) && time.Since(start) == 0 {
					refused++ // goroutines of the bubble may end concurrently
				}
			}()
			synctest.Wait()
		}
		if refused != waitingAnswers {
			t.Errorf("%[2]d of %[1]d calls are refused immediately, want %[3]d", 2*waitingAnswers, refused, waitingAnswers)
		}
		wait.Advance(spaceWait)
		if m.queue != 0 {
			t.Errorf("%d calls wait", m.queue)
		}
		first.close()
		held(100)
		first.give(600)
		held(100)
		if err := first.take(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("after the end of the call: %v", err)
		}
		c2.Close()
		held(0)
		second.give(100)
		second.close()
		c.Close()
		held(0)
		if a.holders != 0 || len(a.users) != 0 {
			t.Errorf("%d holders and %d users remain", a.holders, len(a.users))
		}
	})
}

// All users together have a limit, and equal shares when they approach it.
func TestTotalMemory(t *testing.T) {
	const most, total = 1 << 20, 4 << 20
	a := &meters{most: most, total: total, over: func(identity) {}}
	var all []*meter
	for uid := range uint32(40) {
		_, c, m := metered(a, uid)
		defer c.Close()
		all = append(all, m)
	}
	for range most >> 10 {
		for _, m := range all {
			if m.add(1<<10) == false {
				m.add(-1 << 10) // the connection is closed
			}
		}
	}
	if a.sum > total+most || a.sum < total/2 {
		t.Errorf("%d bytes are held, of %d", a.sum, total)
	}
	for uid, m := range all {
		if m.held < leastShare {
			t.Errorf("user %d may hold %d bytes only", uid, m.held)
		}
	}
	if !all[0].aboveSoftLimit() {
		t.Error("further requests are accepted")
	}
	for _, m := range all[1:] {
		m.add(-m.held)
	}
	if a.holders != 1 || all[0].aboveSoftLimit() {
		t.Errorf("%d holders; a single user is above the soft limit: %v", a.holders, all[0].aboveSoftLimit())
	}
	all[0].add(-all[0].held)
}

// unread makes calls and never reads the responses, with the largest flow-control
// windows.
func (r *testServer) unread(t *testing.T, method string, body []byte, n int) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	b := []byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	settings := bytesOf(4, 0, 0, 6)
	settings[10] = 4
	binary.BigEndian.PutUint32(settings[11:], 1<<31-1)
	update := bytesOf(8, 0, 0, 4)
	binary.BigEndian.PutUint32(update[9:], 1<<30)
	b = append(append(b, settings...), update...)
	var block []byte
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", method}, {":authority", "x"}, {"content-type", "application/grpc"}} {
		block = fmt.Appendf(block, "\x00%c%s%c%s", len(f[0]), f[0], len(f[1]), f[1])
	}
	for i := range n {
		stream := uint32(2*i + 1)
		b = append(append(b, bytesOf(frameHeaders, 4, stream, len(block))[:9]...), block...)
		b = append(b, bytesOf(frameData, flagEndStream, stream, 5+len(body))[:9]...)
		b = append(binary.BigEndian.AppendUint32(append(b, 0), uint32(len(body))), body...)
	}
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	return conn
}

// unreadCalls is a number of calls whose responses exceed the limit of a user, while the
// requests fit into the quarter that is not for responses.
const unreadCalls = 12

// Over the wire: unread responses count, of streams and of other calls; further ones are
// refused; and the memory is released when they are read or the client disconnects.
func TestUnreadAnswers(t *testing.T) {
	w := &v2.Workflow{Name: "job7", Namespace: "default"}
	encoded := func(m proto.Message) []byte {
		b, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, tt := range map[string]struct {
		method string
		body   []byte
		end    func(t *testing.T, conn net.Conn)
	}{
		"lists, then the client disconnects":   {"/datamovement.DataMover/List", encoded(&v1.DataMovementListRequest{Workflow: wire7}), func(_ *testing.T, c net.Conn) { c.Close() }},
		"lists, then the responses are read":   {"/datamovement.DataMover/List", encoded(&v1.DataMovementListRequest{Workflow: wire7}), func(_ *testing.T, c net.Conn) { go io.Copy(io.Discard, c) }},
		"watches, then the client disconnects": {"/datamovement.v2.DataMover/Watch", encoded(&v2.WatchRequest{Workflow: w}), func(_ *testing.T, c net.Conn) { c.Close() }},
		"watches, then they are cancelled": {"/datamovement.v2.DataMover/Watch", encoded(&v2.WatchRequest{Workflow: w}), func(t *testing.T, c net.Conn) {
			for i := range uint32(unreadCalls) {
				if _, err := c.Write(bytesOf(frameReset, 0, 2*i+1, 4)); err != nil {
					t.Error(err)
				}
			}
			go io.Copy(io.Discard, c)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			r := startServer(t, func(o *Options) { o.Settings.Limits.Waiters = 100 })
			r.many(300) // 60 KB of names
			highest := int64(0)
			conn := r.unread(t, tt.method, tt.body, unreadCalls)
			wait.Until(t, "a refusal while much is held", func() bool {
				highest = max(highest, r.held(1001))
				return r.log.count("limits.memory_per_user") > 0 && highest >= testMemory/3
			})
			if highest > testMemory {
				t.Errorf("%d bytes were held, of %d", highest, testMemory)
			}
			list := func() error {
				_, err := v1.NewDataMoverClient(r.dial(t)).List(t.Context(), &v1.DataMovementListRequest{Workflow: wire7})
				return err
			}
			// Refused watches have left some memory.
			if err := list(); status.Code(err) != codes.ResourceExhausted && !strings.HasPrefix(name, "watches") {
				t.Errorf("another response: %v", err)
			}
			r.uid.Store(1002)
			if err := list(); err != nil {
				t.Errorf("another user: %v", err)
			}
			r.uid.Store(1001)
			tt.end(t, conn)
			wait.Until(t, "the end", func() bool { return r.held(1001) == 0 })
			if err := list(); err != nil {
				t.Errorf("afterwards: %v", err)
			}
		})
	}
}
