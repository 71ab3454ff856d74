package server

import "encoding/binary"

// Kinds and flags of HTTP/2 frames (RFC 9113, 6).
const (
	frameData         = 0
	frameHeaders      = 1
	frameReset        = 3
	frameContinuation = 9

	flagEndStream = 1
)

// frame is the head of one.
type frame struct {
	kind, flags byte
	stream      uint32
	size        int64 // of what follows
}

// frames finds the heads of frames in a stream of bytes, however it is cut.
type frames struct {
	head [9]byte
	have int   // bytes of the head
	left int64 // bytes to pass over before the next head
}

// between tells that the next byte begins a frame.
func (f *frames) between() bool { return f.left == 0 && f.have == 0 }

func (f *frames) feed(b []byte, see func(frame)) {
	for len(b) > 0 {
		if f.left > 0 {
			n := min(f.left, int64(len(b)))
			f.left -= n
			b = b[n:]
			continue
		}
		n := copy(f.head[f.have:], b)
		f.have += n
		b = b[n:]
		if f.have < len(f.head) {
			return
		}
		f.have = 0
		f.left = int64(f.head[0])<<16 | int64(f.head[1])<<8 | int64(f.head[2])
		see(frame{kind: f.head[3], flags: f.head[4], stream: binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31), size: f.left})
	}
}
