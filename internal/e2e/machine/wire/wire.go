// Package wire is the protocol between a test and the agent in a machine: messages of one line
// each. After a crash of either side, the next line is valid again.
package wire

import (
	"bufio"
	"encoding/json"
	"io"
	"sync"
)

// Chunk is the maximum number of bytes of standard input or output in one message.
const Chunk = 48 << 10

// Message is one line of JSON. The host chooses the numbers of calls.
type Message struct {
	// From the guest, once after its start: the boot ID.
	Hello string `json:"hello,omitempty"`

	Call int `json:"call,omitempty"`

	// From the host: a part of standard input; then the script for bash; or a request to kill
	// the script.
	In     []byte `json:"in,omitempty"`
	Script string `json:"script,omitempty"`
	Kill   bool   `json:"kill,omitempty"`

	// From the guest: a part of the output, including standard error; then the exit code.
	Out  []byte `json:"out,omitempty"`
	Done bool   `json:"done,omitempty"`
	Code int    `json:"code,omitempty"`
}

// Writer sends messages. It can be used concurrently.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer. It first sends an empty line, which ends an incomplete message of
// a predecessor.
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

// Read calls f for each message until the stream ends. It skips lines that are not messages,
// such as the remains of a message whose sender was killed.
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
