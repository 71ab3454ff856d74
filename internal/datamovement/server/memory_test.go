package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	v1 "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func bytesOf(kind, flags byte, stream uint32, size int) []byte {
	b := []byte{byte(size >> 16), byte(size >> 8), byte(size), kind, flags}
	return append(binary.BigEndian.AppendUint32(b, stream|1<<31), make([]byte, size)...) // the reserved bit is ignored
}

// The same frames are found, however the bytes are split.
func TestFrames(t *testing.T) {
	var all []byte
	var want []frame
	for i := range 50 {
		f := frame{kind: byte(i % 10), flags: byte(i), stream: uint32(2*i + 1), size: int64(i * i * 7)}
		all = append(all, bytesOf(f.kind, f.flags, f.stream, int(f.size))...)
		want = append(want, f)
	}
	for _, most := range []int{1, 2, 9, 10, 1000, len(all)} {
		var f frames
		var got []frame
		for rest := all; len(rest) > 0; {
			n := min(len(rest), 1+rand.N(most))
			f.feed(rest[:n], func(f frame) { got = append(got, f) })
			rest = rest[n:]
		}
		if !slices.Equal(got, want) || !f.between() {
			t.Errorf("split after at most %d bytes: %v", most, got)
		}
	}
}

// metered returns a connection of a user. Requests are written to client, and responses
// are read from it.
func metered(a *meters, uid uint32) (client net.Conn, c net.Conn, m *meter) {
	client, server := net.Pipe()
	id := identity{caller: datamovement.Caller{UID: uid}}
	c = a.watch(server, &id)
	return client, c, id.meter
}

func TestMeter(t *testing.T) {
	cut := 0
	a := &meters{most: 64 << 10, over: func(identity) { cut++ }}
	client, c, m := metered(a, 7)
	go io.Copy(io.Discard, client)
	send := func(b []byte) error {
		go client.Write(b)
		_, err := io.ReadFull(c, make([]byte, len(b)))
		return err
	}
	for i, step := range []struct {
		sent, answered []byte
		held           int64
		aboveSoftLimit bool
	}{
		{sent: make([]byte, preface)},
		{sent: bytesOf(4, 0, 0, 6)}, // settings
		{sent: bytesOf(frameHeaders, 4, 1, 100), held: perRequest + 100},
		{sent: bytesOf(frameContinuation, 4, 1, 10), held: perRequest + 110},
		{sent: bytesOf(frameData, 0, 1, 1000), held: perRequest + 1110},
		{sent: bytesOf(frameData, flagEndStream, 1, 0), held: perRequest + 1110}, // until the response
		{sent: bytesOf(frameHeaders, 4, 3, 100), held: 2*perRequest + 1210},
		{answered: bytesOf(frameHeaders, 4, 1, 20), held: 2*perRequest + 1210},
		{answered: bytesOf(frameData, 0, 1, 20), held: 2*perRequest + 1210},
		{answered: bytesOf(frameHeaders, 4|flagEndStream, 1, 20), held: perRequest + 100},
		{sent: bytesOf(frameData, 0, 1, 5000), held: perRequest + 100}, // a closed stream
		{sent: bytesOf(frameReset, 0, 3, 4), held: 0},
		{sent: bytesOf(frameHeaders, 4, 5, 45000), held: perRequest + 45000},
		{sent: bytesOf(frameHeaders, 4, 7, 100), held: 2*perRequest + 45100, aboveSoftLimit: true},
		{answered: bytesOf(frameReset, 0, 5, 4), held: perRequest + 100},
	} {
		if step.sent != nil {
			if err := send(step.sent); err != nil {
				t.Fatalf("step %d: %v", i, err)
			}
		} else if _, err := c.Write(step.answered); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if m.held != step.held || m.aboveSoftLimit() != step.aboveSoftLimit {
			t.Errorf("step %d: %d bytes are charged, want %d; above the soft limit: %v", i, m.held, step.held, m.aboveSoftLimit())
		}
	}
	// Another connection of the same user shares the limit; another user does not.
	second, c2, m2 := metered(a, 7)
	third, c3, _ := metered(a, 8)
	if m2 != m {
		t.Fatal("two meters for one user")
	}
	big := slices.Concat(make([]byte, preface), bytesOf(frameHeaders, 4, 1, 10), bytesOf(frameData, 0, 1, 58<<10))
	for name, x := range map[string]struct {
		client, server net.Conn
		want           error
	}{"same": {second, c2, errTooMuch}, "other": {third, c3, nil}} {
		go x.client.Write(big)
		if _, err := io.ReadFull(x.server, make([]byte, len(big))); err != x.want {
			t.Errorf("%s user: %v", name, err)
		}
	}
	if cut != 1 {
		t.Errorf("%d records", cut)
	}
	for _, c := range []net.Conn{c, c2, c3, c, c2} {
		c.Close()
	}
	if m.held != 0 || len(a.users) != 0 {
		t.Errorf("%d bytes are charged, %d users remain after all have disconnected", m.held, len(a.users))
	}
	for _, c := range []net.Conn{client, second, third} {
		c.Close()
	}
}

// After all requests have ended, nothing is charged.
func TestMeterReleases(t *testing.T) {
	a := &meters{over: func(identity) {}}
	_, server, m := metered(a, 7)
	c := server.(*meteredConn)
	c.in.left = 0
	for range 20000 {
		stream := uint32(2*rand.N(40) + 1)
		b := bytesOf(byte(rand.N(10)), byte(rand.N(8)), stream, rand.N(100))
		if rand.N(2) == 0 {
			c.count(&c.in, b, c.received)
		} else {
			c.count(&c.out, b, c.sent)
		}
		sum := int64(0)
		for _, n := range c.live {
			sum += n
		}
		if m.held != sum {
			t.Fatalf("%d bytes are charged to the user, %d to the only connection", m.held, sum)
		}
	}
	for stream := range uint32(80) {
		c.count(&c.out, bytesOf(frameReset, 0, stream, 4), c.sent)
	}
	if m.held != 0 || len(c.live) != 0 {
		t.Errorf("%d bytes of %d requests remain", m.held, len(c.live))
	}
	c.Close()
}

// Over the wire: a user above the memory limit is refused with an error, and disconnected
// if the client continues; other users are not affected.
func TestMemoryPerUser(t *testing.T) {
	r := startServer(t)
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var b bytes.Buffer
	b.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	b.Write(bytesOf(4, 0, 0, 0))
	send := func(stream uint32, size int) error {
		var block []byte
		for _, f := range [][2]string{
			{":method", "POST"}, {":scheme", "http"}, {":path", "/datamovement.DataMover/Create"}, {":authority", "x"}, {"content-type", "application/grpc"},
		} {
			block = fmt.Appendf(block, "\x00%c%s%c%s", len(f[0]), f[0], len(f[1]), f[1])
		}
		head := bytesOf(frameHeaders, 4, stream, len(block))
		b.Write(append(head[:9], block...))
		for ; size > 0; size -= 16000 {
			data := bytesOf(frameData, 0, stream, min(size, 16000))
			data[9], data[11] = 0, 1 // a message of 64 KiB, of which parts are sent
			b.Write(data)
		}
		_, err := conn.Write(b.Bytes())
		b.Reset()
		return err
	}
	call := func() error {
		_, err := v1.NewDataMoverClient(r.dial(t)).Version(t.Context(), new(emptypb.Empty))
		return err
	}
	stream := uint32(1)
	for ; r.held(1001) < testMemory/4*3; stream += 2 { // each has its window of 64 KiB
		if err := send(stream, 40000); err != nil {
			t.Fatal(err)
		}
		wait.Until(t, "the memory of the request", func() bool { return r.held(1001) >= int64(stream/2+1)*40000 })
	}
	if err := call(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a user above the limit: %v", err)
	}
	for range 20 {
		if err = send(stream, 60000); err != nil {
			break
		}
		stream += 2
	}
	go io.Copy(io.Discard, conn)
	wait.Until(t, "the end of the connection", func() bool { return r.held(1001) <= testMemory/4*3 })
	if r.log.count("object=connection") == 0 {
		t.Error("no record of the closed connection")
	}
	r.uid.Store(1002)
	if err := call(); err != nil {
		t.Errorf("another user: %v", err)
	}
}
