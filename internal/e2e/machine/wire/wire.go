// Package wire is what a test and the agent inside a machine say to each other:
// messages of one line each, so that after a crash of either side the next
// line is a good one.
package wire

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
)

// Chunk is how much standard input or output goes into one message.
const Chunk = 48 << 10

// Message is one line of JSON. Call numbers are the host's.
type Message struct {
	// From the guest, once: it is there; the id of its boot.
	Hello string `json:"hello,omitempty"`

	Call int `json:"call,omitempty"`

	// From the host: a part of standard input; then what bash is to run; or an end
	// to it.
	In     []byte `json:"in,omitempty"`
	Script string `json:"script,omitempty"`
	Kill   bool   `json:"kill,omitempty"`

	// From the guest: a part of the output, standard error included; then the end.
	Out  []byte `json:"out,omitempty"`
	Done bool   `json:"done,omitempty"`
	Code int    `json:"code,omitempty"`
}

// Writer sends messages; several may use it at once.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a writer. The first line is empty: it ends whatever a
// predecessor has left unfinished.
func NewWriter(w io.Writer) (*Writer, error) {
	_, err := w.Write([]byte("\n"))
	return &Writer{w: w}, err
}

// Send sends one message.
func (w *Writer) Send(m Message) error {
	line, err := json.Marshal(m)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(line, '\n'))
	return err
}

// SendInput sends standard input in parts.
func (w *Writer) SendInput(call int, data []byte) error {
	for len(data) > 0 {
		n := min(len(data), Chunk)
		if err := w.Send(Message{Call: call, In: data[:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// Read calls f for each message until the stream ends. A line that is no
// message is left out: it is the rest of one whose sender has died.
func Read(r io.Reader, f func(Message)) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 4*Chunk)
	for lines.Scan() {
		var m Message
		if json.Unmarshal(lines.Bytes(), &m) == nil {
			f(m)
		}
	}
	return lines.Err()
}
