package lab

import (
	"net"
)

// trackingListener notes every connection, so that it can be broken.
type trackingListener struct {
	net.Listener
	proxy *Proxy
}

func (l *trackingListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tracked := &conn{Conn: c, proxy: l.proxy, closed: make(chan struct{})}
		l.proxy.mu.Lock()
		drop := l.proxy.dropNew
		if !drop {
			l.proxy.conns[tracked] = true
		}
		l.proxy.mu.Unlock()
		if !drop {
			return tracked, nil
		}
		c.Close()
	}
}

type conn struct {
	net.Conn
	proxy  *Proxy
	closed chan struct{}
}

// pass waits while nothing may move.
func (c *conn) pass() {
	c.proxy.mu.Lock()
	stalled := c.proxy.stalled
	c.proxy.mu.Unlock()
	if stalled != nil {
		select {
		case <-stalled:
		case <-c.closed:
		}
	}
}

// Read holds back what came in while the connection is half open.
func (c *conn) Read(b []byte) (int, error) {
	c.pass()
	n, err := c.Conn.Read(b)
	c.pass()
	return n, err
}

func (c *conn) Write(b []byte) (int, error) {
	c.pass()
	return c.Conn.Write(b)
}

func (c *conn) Close() error {
	c.proxy.mu.Lock()
	if c.proxy.conns[c] {
		delete(c.proxy.conns, c)
		close(c.closed)
	}
	c.proxy.mu.Unlock()
	return c.Conn.Close()
}

// Refuse closes the listener and every connection: connecting fails.
func (p *Proxy) Refuse() {
	p.mu.Lock()
	ln := p.listener
	p.listener = nil
	p.mu.Unlock()
	if ln != nil {
		ln.Close()
	}
	p.Reset()
	p.listening.Wait()
}

// Accept ends Refuse on the same port.
func (p *Proxy) Accept() error {
	p.mu.Lock()
	open := p.listener != nil
	p.mu.Unlock()
	if open {
		return nil
	}
	return p.listen(p.Address)
}

// Down accepts connections and closes them at once, old ones too.
func (p *Proxy) Down(yes bool) {
	p.mu.Lock()
	p.dropNew = yes
	p.mu.Unlock()
	if yes {
		p.Reset()
	}
}

// Reset breaks every connection with a TCP reset; new ones are welcome.
func (p *Proxy) Reset() {
	p.mu.Lock()
	var list []*conn
	for c := range p.conns {
		list = append(list, c)
	}
	p.mu.Unlock()
	for _, c := range list {
		if tcp, ok := c.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		c.Close()
	}
}

// HalfOpen keeps connections as they are and lets nothing pass in either
// direction, as when a router forgets them. The kernel still acknowledges what
// the daemon sends: a loss below TCP cannot be played without privileges.
func (p *Proxy) HalfOpen(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case yes && p.stalled == nil:
		p.stalled = make(chan struct{})
	case !yes && p.stalled != nil:
		close(p.stalled)
		p.stalled = nil
	}
}

// Connections returns how many connections are open.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}
