package node

import (
	"fmt"
	"os"
	"strings"
)

// capture keeps the first and the last half of what is written to it: the cause
// is usually at one of the ends, and memory stays bounded whatever a program
// prints.
type capture struct {
	limit int
	head  []byte
	tail  []byte // a ring once it is full
	next  int    // where the ring is written next
	total int64
}

func (c *capture) Write(p []byte) (int, error) {
	written := len(p)
	c.total += int64(written)
	if room := c.limit/2 - len(c.head); room > 0 {
		k := min(room, len(p))
		c.head, p = append(c.head, p[:k]...), p[k:]
	}
	size := c.limit - c.limit/2
	if len(p) > size {
		p = p[len(p)-size:]
	}
	if room := size - len(c.tail); room > 0 {
		k := min(room, len(p))
		c.tail, p = append(c.tail, p[:k]...), p[k:]
	}
	for len(p) > 0 {
		k := copy(c.tail[c.next:], p)
		c.next, p = (c.next+k)%size, p[k:]
	}
	return written, nil
}

// leftOut returns how many bytes were dropped from the middle.
func (c *capture) leftOut() int64 { return c.total - int64(len(c.head)+len(c.tail)) }

// String returns what was kept, as valid UTF-8.
func (c *capture) String() string {
	var b strings.Builder
	b.Write(c.head)
	if n := c.leftOut(); n > 0 {
		fmt.Fprintf(&b, "\n… %d bytes left out …\n", n)
	}
	b.Write(c.tail[c.next:])
	b.Write(c.tail[:c.next])
	return strings.ToValidUTF8(b.String(), "\uFFFD")
}

// stream reads one output of a command into a capture.
type stream struct {
	capture
	r    *os.File
	done chan struct{} // closed when the reader has ended
}

// newStream starts to read; w is the end that the command writes to.
func newStream(limit int) (s *stream, w *os.File, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	s = &stream{capture: capture{limit: limit}, r: r, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := make([]byte, 4<<10) // more would only stay in a daemon that is idle most of its life
		for {
			n, err := r.Read(buf)
			s.Write(buf[:n])
			if err != nil {
				return // all writers are gone, or stop
			}
		}
	}()
	return s, w, nil
}

// stop ends the reader, whoever still holds the other end. The capture can be
// read afterwards.
func (s *stream) stop() {
	s.r.Close()
	<-s.done
}
