package fleet

import (
	"bytes"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// echo returns a line to a fake node that returns its input.
func echo(t *testing.T) *line {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "socket")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	l, err := newLine(socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func (l *line) dial() (*net.TCPConn, error) {
	conn, err := net.Dial("tcp", "127.0.0.1:"+strconv.Itoa(l.port))
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), conn.SetDeadline(time.Now().Add(20 * time.Second))
}

// ask sends data and returns the answer.
func (l *line) ask(data []byte) ([]byte, error) {
	conn, err := l.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	go func() {
		_, _ = conn.Write(data)
		_ = conn.CloseWrite()
	}()
	return io.ReadAll(conn)
}

func set(t *testing.T, l *line, f Faults) {
	t.Helper()
	if err := l.Set(f); err != nil {
		t.Fatal(err)
	}
}

func TestLine(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 5000)
	whole := func(t *testing.T, l *line) {
		t.Helper()
		if back, err := l.ask(data); err != nil || !bytes.Equal(back, data) {
			t.Errorf("%d of %d bytes were returned, %v", len(back), len(data), err)
		}
	}
	t.Run("no faults", func(t *testing.T) {
		l := echo(t)
		whole(t, l)
		whole(t, l)
		if n := l.Connections(); n != 2 {
			t.Errorf("%d connections, want 2", n)
		}
		if n := l.Connections(); n != 0 {
			t.Errorf("%d connections in the second call, want 0", n)
		}
	})
	t.Run("dead", func(t *testing.T) {
		l := echo(t)
		open, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer open.Close()
		wait.Until(t, "the connection to be accepted", func() bool { return l.open() > 0 })
		set(t, l, Faults{Dead: true})
		if _, err := l.dial(); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting: %v", err)
		}
		if _, err := open.Read(make([]byte, 1)); err == nil || errors.Is(err, syscall.EAGAIN) {
			t.Errorf("the open connection still works: %v", err)
		}
		set(t, l, Faults{})
		whole(t, l)
	})
	t.Run("silent", func(t *testing.T) {
		l := echo(t)
		set(t, l, Faults{Silent: true})
		conn, err := l.dial()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond))
		if n, err := conn.Write(data[:10]); n != 10 || err != nil {
			t.Error(n, err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || !isTimeout(err) {
			t.Errorf("received %d bytes, %v", n, err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		l := echo(t)
		set(t, l, Faults{Rate: 100_000, Latency: time.Millisecond})
		started := time.Now()
		whole(t, l)
		if took := time.Since(started); took < 450*time.Millisecond {
			t.Errorf("50 kB took %v, want half a second", took)
		}
	})
	t.Run("cut", func(t *testing.T) {
		l := echo(t)
		set(t, l, Faults{CutAt: 20_000})
		if back, err := l.ask(data); err == nil && len(back) == len(data) {
			t.Error("all bytes were returned")
		}
		set(t, l, Faults{})
		whole(t, l)
	})
}

func (l *line) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.conns)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.As(err, &n) && n.Timeout()
}
