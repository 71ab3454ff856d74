package abuse

import (
	"encoding/binary"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// HTTP/2 by hand (RFC 9113), for what no library would send.

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

// hello is what a client says first.
func hello() []byte { return append([]byte(preface), frame(frameSettings, 0, 0, nil)...) }

// headers begins a request. Every field is written out (RFC 7541, 6.2.2).
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

// message begins a message of so many bytes, of which some are sent.
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

// isOpen tells whether the other side has left a connection open. What it has
// said is thrown away.
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

// ended waits until the other side has closed a connection.
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
