package fleet

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// line is the network connection to one node: a port of the loopback interface, which is
// forwarded to the socket of the node's sshd.
type line struct {
	port   int
	socket string

	mu        sync.Mutex
	listener  net.Listener
	conns     map[net.Conn]bool
	faults    Faults
	count     int // connections since the last call of Connections
	work      sync.WaitGroup
	delivered atomic.Int64 // bytes that have reached the node
}

// Faults are the faults of a line. The zero value means no faults.
type Faults struct {
	Dead    bool          // connections are refused
	Silent  bool          // connections are accepted and never answered
	Rate    int           // bytes per second in each direction; 0: no limit
	Latency time.Duration // in each direction
	CutAt   int64         // connections break when CutAt bytes have reached the node; 0: never
}

func newLine(socket string) (*line, error) {
	l := &line{socket: socket, conns: map[net.Conn]bool{}}
	return l, l.listen()
}

func (l *line) listen() error {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", l.port))
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.listener, l.port = listener, listener.Addr().(*net.TCPAddr).Port
	l.work.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			l.work.Go(func() { l.forward(conn) })
		}
	})
	return nil
}

// Set sets the faults of the line. Dead, Rate, Latency and CutAt also affect open connections.
func (l *line) Set(f Faults) error {
	l.mu.Lock()
	listener := l.listener
	l.faults = f
	if f.Dead {
		l.listener = nil
	}
	l.mu.Unlock()
	l.delivered.Store(0)
	switch {
	case f.Dead && listener != nil:
		l.reset()
		return listener.Close()
	case !f.Dead && listener == nil:
		return l.listen()
	}
	return nil
}

// Connections returns the number of connections since the last call.
func (l *line) Connections() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.count
	l.count = 0
	return n
}

// Close closes the line and all its connections.
func (l *line) Close() error {
	err := l.Set(Faults{Dead: true})
	l.work.Wait()
	return err
}

// reset closes all open connections with a TCP reset.
func (l *line) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for conn := range l.conns {
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		conn.Close()
	}
}

// register records an open connection, so that it can be reset.
func (l *line) register(conn net.Conn) (release func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[conn] = true
	return func() {
		conn.Close()
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.conns, conn)
	}
}

func (l *line) forward(from net.Conn) {
	defer l.register(from)()
	l.mu.Lock()
	l.count++
	f := l.faults
	l.mu.Unlock()
	if f.Silent {
		_, _ = io.Copy(io.Discard, from)
		return
	}
	node, err := net.Dial("unix", l.socket)
	if err != nil {
		return // as if sshd did not run on the node
	}
	defer l.register(node)()
	var both sync.WaitGroup
	both.Go(func() { l.move(node, from, &l.delivered) })
	both.Go(func() { l.move(from, node, nil) })
	both.Wait()
}

// move copies one direction until EOF, and then closes it at the other end.
func (l *line) move(to, from net.Conn, delivered *atomic.Int64) {
	defer func() {
		if half, ok := to.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite()
		}
	}()
	buffer := make([]byte, 16<<10)
	for {
		l.mu.Lock()
		f := l.faults
		l.mu.Unlock()
		piece := buffer
		if f.Rate > 0 { // twenty pieces per second
			piece = buffer[:min(len(buffer), max(1, f.Rate/20))]
		}
		n, err := from.Read(piece)
		if n > 0 {
			wait := f.Latency
			if f.Rate > 0 {
				wait += time.Duration(n) * time.Second / time.Duration(f.Rate)
			}
			time.Sleep(wait) // simulates the latency
			if _, err := to.Write(piece[:n]); err != nil {
				return
			}
		}
		if delivered != nil && delivered.Add(int64(n)) >= f.CutAt && f.CutAt > 0 {
			l.reset()
			return
		}
		if err != nil {
			return
		}
	}
}
