package main

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// transport reports the requests of a node where they leave client-go, and counts the bytes
// of its connections, with TLS.
type transport struct {
	base http.RoundTripper
	emit func(event) // adds the number of the node and the time

	sent, received, bookmarks atomic.Int64

	mu      sync.Mutex
	open    map[net.Conn]bool
	watches int // that run
	wanted  int // that must run so that the node follows the server
}

// change adds to the watches that run and to those that are wanted. It reports when the last
// one runs, and when the first one has ended.
func (t *transport) change(running, wanted int) {
	t.mu.Lock()
	before := t.watches == t.wanted
	t.watches, t.wanted = t.watches+running, t.wanted+wanted
	after := t.watches == t.wanted
	t.mu.Unlock()
	switch {
	case after && !before:
		t.emit(event{Event: "follows"})
	case before && !after:
		t.emit(event{Event: "lost"})
	}
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.base.RoundTrip(r)
	e := event{Event: "request", Method: r.Method, URL: r.URL.RequestURI()}
	if err == nil {
		e.Status = resp.StatusCode
	}
	t.emit(e)
	if err == nil && resp.StatusCode == http.StatusOK && r.URL.Query().Get("watch") != "" {
		t.change(1, 0)
		resp.Body = &watchBody{ReadCloser: resp.Body, t: t}
	}
	return resp, err
}

// bookmark is the start of a bookmark, each of which is one line of a watch.
var bookmark = []byte(`{"type":"BOOKMARK"`)

// watchBody counts the bookmarks of a watch, and reports its end.
type watchBody struct {
	io.ReadCloser
	t     *transport
	ended sync.Once
}

// Read counts the bookmarks. The server flushes each event, so that one read has the start
// of a bookmark.
func (w *watchBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	w.t.bookmarks.Add(int64(bytes.Count(p[:n], bookmark)))
	if err != nil {
		w.end()
	}
	return n, err
}

func (w *watchBody) Close() error {
	w.end()
	return w.ReadCloser.Close()
}

func (w *watchBody) end() { w.ended.Do(func() { w.t.change(-1, 0) }) }

// dial is for rest.Config. With a function of its own, client-go gives the node a transport
// of its own.
func (t *transport) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	t.emit(event{Event: "connection"})
	c := &countedConn{conn, t}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open[c] = true
	return c, nil
}

// close closes the connections, as the exit of a process does.
func (t *transport) close() {
	t.mu.Lock()
	var list []net.Conn
	for c := range t.open {
		list = append(list, c)
	}
	t.mu.Unlock()
	for _, c := range list {
		_ = c.Close()
	}
}

// countedConn counts the bytes of a connection.
type countedConn struct {
	net.Conn
	t *transport
}

func (c *countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.t.received.Add(int64(n))
	return n, err
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.t.sent.Add(int64(n))
	return n, err
}

func (c *countedConn) Close() error {
	c.t.mu.Lock()
	delete(c.t.open, c)
	c.t.mu.Unlock()
	return c.Conn.Close()
}
