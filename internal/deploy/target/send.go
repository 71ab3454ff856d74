package target

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// input is the standard input of a script that a function writes. ssh's pipe is written directly
// (io.WriterTo), so that files need not pass through this process; other readers use Read.
type input struct {
	write func(w *sink) error

	mu            sync.Mutex
	started, done bool
	pipe          *io.PipeReader // of Read
	ended         chan struct{}
	err           error // of write
}

func newInput(write func(w *sink) error) *input {
	return &input{write: write, ended: make(chan struct{})}
}

// start reports whether the caller must run the function. It does so once, and not after finish.
func (in *input) start(pipe *io.PipeReader) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.started || in.done {
		return false
	}
	in.started, in.pipe = true, pipe
	return true
}

func (in *input) run(w io.Writer) (int64, error) {
	defer close(in.ended)
	s := &sink{w: w}
	in.err = in.write(s)
	return s.written, in.err
}

// WriteTo implements io.WriterTo.
func (in *input) WriteTo(w io.Writer) (int64, error) {
	if !in.start(nil) {
		return 0, nil
	}
	return in.run(w)
}

// Read implements io.Reader.
func (in *input) Read(p []byte) (int, error) {
	if r, w := io.Pipe(); in.start(r) {
		go func() {
			_, err := in.run(w)
			w.CloseWithError(err)
		}()
	}
	in.mu.Lock()
	pipe := in.pipe
	in.mu.Unlock()
	if pipe == nil {
		return 0, io.EOF
	}
	return pipe.Read(p)
}

// finish makes further calls return the end of the input, waits for the function, and returns its
// error.
func (in *input) finish() error {
	in.mu.Lock()
	in.done = true
	started, pipe := in.started, in.pipe
	in.mu.Unlock()
	if !started {
		return nil
	}
	if pipe != nil {
		pipe.Close()
	}
	<-in.ended
	return in.err
}

// sink is where the function of an input writes.
type sink struct {
	w       io.Writer
	written int64
	broken  bool // w has returned an error: the script has exited
}

// Write implements io.Writer.
func (s *sink) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.written += int64(n)
	s.broken = s.broken || err != nil
	return n, err
}

// file writes a file of size bytes, and returns the number of written bytes.
func (s *sink) file(f *os.File, size int64) (int64, error) {
	if pipe, ok := s.w.(*os.File); ok {
		n, err := s.splice(pipe, f, size)
		if n > 0 || !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return io.Copy(s, io.LimitReader(f, size))
}

// splice moves the pages of a file to a pipe (splice(2)), which takes half of the processor time
// of copying them. It returns unix.EINVAL if the file system or the kind of w do not support it.
func (s *sink) splice(pipe, f *os.File, size int64) (sent int64, err error) {
	to, err := pipe.SyscallConn()
	if err != nil {
		return 0, unix.EINVAL
	}
	from, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	for sent < size {
		n := int64(0)
		var failed error
		writable := func(fd uintptr) bool {
			err := from.Control(func(source uintptr) {
				n, failed = unix.Splice(int(source), nil, int(fd), nil, int(min(size-sent, 1<<20)), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
			})
			if err != nil {
				failed = err
			}
			return !errors.Is(failed, unix.EAGAIN)
		}
		if err := to.Write(writable); err != nil {
			s.broken = true
			return sent, err
		}
		switch {
		case errors.Is(failed, unix.EINTR):
			continue
		case failed != nil:
			s.broken = s.broken || errors.Is(failed, unix.EPIPE)
			return sent, failed
		case n == 0: // the file has become shorter
			return sent, nil
		}
		sent += n
		s.written += n
	}
	return sent, nil
}

// write writes the archive, which has exactly a.size bytes.
func (a *archive) write(w *sink) error {
	for _, m := range a.members {
		var head bytes.Buffer
		t := tar.NewWriter(&head)
		if err := t.WriteHeader(&tar.Header{Format: tar.FormatUSTAR, Name: m.name, Mode: 0o600, Size: m.size, ModTime: time.Unix(1, 0), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(head.Bytes()); err != nil {
			return err
		}
		if err := m.write(w); err != nil {
			return err
		}
		if _, err := w.Write(make([]byte, (block-m.size%block)%block)); err != nil {
			return err
		}
	}
	_, err := w.Write(make([]byte, 2*block))
	return err
}

func (m *member) write(w *sink) error {
	if m.path == "" {
		_, err := w.Write(m.data)
		return err
	}
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if n, err := w.file(f, m.size); err != nil {
		return err
	} else if n != m.size {
		return fmt.Errorf("%s changed while it was being sent", m.path)
	}
	return nil
}
