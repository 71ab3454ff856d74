package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// class is a class of requests of a node.
type class int

const (
	discovery class = iota
	list
	watch
	profile // a read of a storage profile
	patch
	update // of a whole object
	create
	other
	classes
)

var classNames = [classes]string{"discovery", "list", "watch", "profile", "patch", "update", "create", "other"}

// lists matches the paths of lists in one namespace or in all.
var lists = regexp.MustCompile(`^/apis/[^/]+/[^/]+/(namespaces/[^/]+/)?[^/]+$`)

func classOf(r *http.Request) class {
	path := r.URL.Path
	switch {
	case r.Method == http.MethodPatch:
		return patch
	case r.Method == http.MethodPut:
		return update
	case r.Method == http.MethodPost && strings.HasSuffix(path, "/nnfdatamovements"):
		return create
	case r.Method != http.MethodGet:
		return other
	case r.URL.Query().Get("watch") != "":
		return watch
	case strings.Contains(path, "/nnfstorageprofiles/"):
		return profile
	case lists.MatchString(path):
		return list
	case path == "/api" || path == "/apis" || strings.HasPrefix(path, "/apis/") && strings.Count(path, "/") <= 3:
		return discovery
	}
	return other
}

// failure is a class of requests that failed.
type failure int

const (
	noResponse   failure = iota
	unauthorized         // a starting server cannot check tokens yet
	conflict             // 409, and 422 for a JSON patch whose test failed
	overload             // 429
	refused              // other 4xx
	serverError          // 5xx
	failures
)

var failureNames = [failures]string{"no response", "401", "conflict", "429", "other 4xx", "5xx"}

// failureOf returns the class of a response with a status of 400 or more, or of nil.
func failureOf(r *http.Response) failure {
	switch {
	case r == nil:
		return noResponse
	case r.StatusCode == http.StatusUnauthorized:
		return unauthorized
	case r.StatusCode == http.StatusConflict || r.StatusCode == http.StatusUnprocessableEntity:
		return conflict
	case r.StatusCode == http.StatusTooManyRequests:
		return overload
	case r.StatusCode < 500:
		return refused
	}
	return serverError
}

// counts are the requests and bytes of a node, or their difference or sum.
type counts struct {
	requests  [classes]int64
	failed    [failures]int64
	bookmarks int64
	sent      int64 // bytes of the connections, with TLS
	received  int64
}

// add adds n times o.
func (c *counts) add(n int64, o counts) {
	for i := range c.requests {
		c.requests[i] += n * o.requests[i]
	}
	for i := range c.failed {
		c.failed[i] += n * o.failed[i]
	}
	c.bookmarks += n * o.bookmarks
	c.sent += n * o.sent
	c.received += n * o.received
}

func (c *counts) total() (n int64) {
	for _, r := range c.requests {
		n += r
	}
	return n
}

// failures returns the number of requests that failed.
func (c *counts) failures() (n int64) {
	for _, f := range c.failed {
		n += f
	}
	return n
}

// traffic counts the requests of one client where they leave client-go, including
// retries, and the bytes of its connections.
type traffic struct {
	base http.RoundTripper

	requests                  [classes]atomic.Int64
	failed                    [failures]atomic.Int64
	bookmarks, sent, received atomic.Int64

	mu        sync.Mutex
	open      map[net.Conn]bool
	connected []time.Time // when each connection was opened
	followed  time.Time   // when the running watch had delivered its initial state; zero: none runs
}

func newTraffic() *traffic { return &traffic{open: map[net.Conn]bool{}} }

// wrap is for kube.Options.WrapTransport.
func (t *traffic) wrap(base http.RoundTripper) http.RoundTripper {
	t.base = base
	return t
}

func (t *traffic) counts() (c counts) {
	for i := range t.requests {
		c.requests[i] = t.requests[i].Load()
	}
	for i := range t.failed {
		c.failed[i] = t.failed[i].Load()
	}
	c.bookmarks, c.sent, c.received = t.bookmarks.Load(), t.sent.Load(), t.received.Load()
	return c
}

// countsOf returns the counts of each client, zero for nil.
func countsOf(list []*traffic) []counts {
	out := make([]counts, len(list))
	for i, t := range list {
		if t != nil {
			out[i] = t.counts()
		}
	}
	return out
}

// following returns since when the watch delivers changes, or the zero time.
func (t *traffic) following() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.followed
}

func (t *traffic) setFollowing(at time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.followed = at
}

// connections returns when connections were opened since a time.
func (t *traffic) connections(since time.Time) (out []time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, at := range t.connected {
		if !at.Before(since) {
			out = append(out, at)
		}
	}
	return out
}

// RoundTrip implements http.RoundTripper.
func (t *traffic) RoundTrip(r *http.Request) (*http.Response, error) {
	kind := classOf(r)
	t.requests[kind].Add(1)
	resp, err := t.base.RoundTrip(r)
	switch {
	case err != nil || resp.StatusCode >= 400:
		t.failed[failureOf(resp)].Add(1)
	case kind == watch:
		// A watch that starts with the current objects has delivered them at its first
		// bookmark.
		if r.URL.Query().Get("sendInitialEvents") == "" {
			t.setFollowing(time.Now())
		}
		resp.Body = &watchBody{ReadCloser: resp.Body, t: t}
	}
	return resp, err
}

// bookmark is the start of a bookmark in the stream of a watch.
const bookmark = `{"type":"BOOKMARK"`

// watchBody counts the bookmarks of a watch, and notes its end.
type watchBody struct {
	io.ReadCloser
	t    *traffic
	tail []byte // the end of the last read, which may be the start of a bookmark
}

func (w *watchBody) Read(p []byte) (int, error) {
	n, err := w.ReadCloser.Read(p)
	text := append(w.tail, p[:n]...)
	if seen := bytes.Count(text, []byte(bookmark)); seen > 0 {
		w.t.bookmarks.Add(int64(seen))
		if w.t.following().IsZero() {
			w.t.setFollowing(time.Now())
		}
	}
	w.tail = bytes.Clone(text[max(0, len(text)-len(bookmark)+1):])
	if err != nil {
		w.t.setFollowing(time.Time{})
	}
	return n, err
}

func (w *watchBody) Close() error {
	w.t.setFollowing(time.Time{})
	return w.ReadCloser.Close()
}

// countedConn counts the bytes of a connection.
type countedConn struct {
	net.Conn
	t *traffic
}

// wrapConn is for kube.Options.WrapConn.
func (t *traffic) wrapConn(c net.Conn) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn := &countedConn{c, t}
	t.open[conn] = true
	t.connected = append(t.connected, time.Now())
	return conn
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

// close closes the connections, as the exit of a process does.
func (t *traffic) close() {
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
