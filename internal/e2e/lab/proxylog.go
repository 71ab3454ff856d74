package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// Classes of requests.
const (
	ClassDiscovery   = "discovery"
	ClassList        = "list"
	ClassWatch       = "watch"
	ClassGet         = "get"
	ClassCreate      = "create"
	ClassDelete      = "delete"
	ClassUpdate      = "update" // a whole-object PUT
	ClassPatchStatus = "patch-status"
	ClassPatchObject = "patch-finalizer" // the only reason to patch the object itself
	ClassOther       = "other"
)

// Request is a request to the proxy.
type Request struct {
	Time            time.Time
	Class           string
	Method          string
	Path            string // without query
	Query           string
	ResourceVersion string // of a list or watch
	ContentType     string
	UserAgent       string
	Token           string // of the client
	Proto           string
	Body            []byte // of a write, the first 64 KiB

	code atomic.Int64
	sent atomic.Int64
	over atomic.Bool
}

// Code returns the status code of the response, 0 before the response.
func (r *Request) Code() int { return int(r.code.Load()) }

// Sent returns the number of bytes of the response body so far.
func (r *Request) Sent() int64 { return r.sent.Load() }

// Over reports whether the response is complete or the client has disconnected. A watch
// that is not over is active.
func (r *Request) Over() bool { return r.over.Load() }

// Class returns the class of a request.
func Class(r *http.Request) string {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	prefix := 2 // api/v1
	if parts[0] == "apis" {
		prefix = 3 // apis/group/version
	} else if parts[0] != "api" {
		if parts[0] == "version" || parts[0] == "openapi" {
			return ClassDiscovery
		}
		return ClassOther
	}
	if len(parts) <= prefix {
		return ClassDiscovery
	}
	rest := parts[prefix:]
	if rest[0] == "namespaces" && len(rest) > 2 {
		rest = rest[2:]
	}
	named := len(rest) > 1
	switch watch := r.URL.Query().Get("watch"); {
	case r.Method == http.MethodGet && (watch == "1" || watch == "true"):
		return ClassWatch
	case r.Method == http.MethodGet && named:
		return ClassGet
	case r.Method == http.MethodGet:
		return ClassList
	case r.Method == http.MethodPost:
		return ClassCreate
	case r.Method == http.MethodDelete:
		return ClassDelete
	case r.Method == http.MethodPut:
		return ClassUpdate
	case r.Method == http.MethodPatch && len(rest) > 2 && rest[2] == "status":
		return ClassPatchStatus
	case r.Method == http.MethodPatch:
		return ClassPatchObject
	}
	return ClassOther
}

// Requests returns the requests so far.
func (p *Proxy) Requests() []*Request { return p.requests.all() }

// ClearRequests clears the list of requests.
func (p *Proxy) ClearRequests() { p.requests.clear() }

// Count returns the number of requests of the classes, or of all classes if none is
// given.
func (p *Proxy) Count(classes ...string) (n int) {
	for _, r := range p.Requests() {
		match := len(classes) == 0
		for _, c := range classes {
			match = match || c == r.Class
		}
		if match {
			n++
		}
	}
	return n
}

// WaitRequest waits for a request that matches, and returns the first one, including
// past requests.
func (p *Proxy) WaitRequest(ctx context.Context, match func(*Request) bool) (*Request, error) {
	return p.requests.wait(ctx, match)
}

// handler logs a request, applies the rules and forwards it.
func (p *Proxy) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry := &Request{
			Time: time.Now(), Class: Class(r), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Proto: r.Proto,
			ResourceVersion: r.URL.Query().Get("resourceVersion"), ContentType: r.Header.Get("Content-Type"), UserAgent: r.UserAgent(),
			Token: strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "),
		}
		if r.Method != http.MethodGet {
			entry.Body, _ = io.ReadAll(io.LimitReader(r.Body, 64<<10))
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.MultiReader(bytes.NewReader(entry.Body), r.Body), r.Body}
		}
		p.requests.add(entry)
		defer entry.over.Store(true)
		out := http.ResponseWriter(&meter{w, entry})
		if rule := p.rule(entry.Class); rule != nil {
			select {
			case <-time.After(rule.Delay):
			case <-r.Context().Done():
				return
			}
			if rule.Code != 0 {
				rule.answer(out, entry.Class == ClassWatch)
				return
			}
			if rule.CutAfter > 0 {
				out = &cutter{out, rule.CutAfter, func() {
					if rule.Reset {
						p.Reset()
					}
				}}
			}
		}
		forward.ServeHTTP(out, r)
	})
}

// meter records the code and the number of bytes of a response.
type meter struct {
	http.ResponseWriter
	entry *Request
}

func (m *meter) WriteHeader(code int) {
	m.entry.code.Store(int64(code))
	m.ResponseWriter.WriteHeader(code)
}

func (m *meter) Write(b []byte) (int, error) {
	m.entry.code.CompareAndSwap(0, http.StatusOK)
	n, err := m.ResponseWriter.Write(b)
	m.entry.sent.Add(int64(n))
	return n, err
}

// Unwrap is for http.ResponseController.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

// Rule makes the proxy change the response to some requests. If several rules match,
// the first is used.
type Rule struct {
	Class string // class of requests; empty: all
	Times int    // number of uses; 0: no limit

	Delay      time.Duration // before anything else
	Code       int           // respond with this code instead of forwarding: 401, 403, 410, 429, 500, 503 ...
	RetryAfter int           // seconds, with Code
	ErrorEvent bool          // with Code, on a watch: respond with 200 and an ERROR event with that code
	Raw        string        // with Code: this text instead of a status object
	CutAfter   int           // abort the response after this number of bytes of its body
	Reset      bool          // with CutAfter: break the whole connection, not only the stream

	used int
}

// Set adds a rule.
func (p *Proxy) Set(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &r)
}

// Clear removes all rules and stops Down and HalfOpen, but not Refuse (see Accept).
func (p *Proxy) Clear() {
	p.mu.Lock()
	p.rules, p.dropNew = nil, false
	p.mu.Unlock()
	p.HalfOpen(false)
}

func (p *Proxy) rule(class string) *Rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		if (r.Class == "" || r.Class == class) && (r.Times == 0 || r.used < r.Times) {
			r.used++
			c := *r
			return &c
		}
	}
	return nil
}

var reasons = map[int]string{
	401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
	422: "Invalid", 429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}

// answer writes a status object like an API server.
func (r *Rule) answer(w http.ResponseWriter, watch bool) {
	status := map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"code": r.Code, "reason": reasons[r.Code], "message": fmt.Sprintf("lab: injected response %d", r.Code),
	}
	w.Header().Set("Content-Type", "application/json")
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(r.RetryAfter))
		status["details"] = map[string]any{"retryAfterSeconds": r.RetryAfter}
	}
	if r.Raw != "" {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(r.Code)
		_, _ = io.WriteString(w, r.Raw)
		return
	}
	var body any = status
	if r.ErrorEvent && watch {
		body = map[string]any{"type": "ERROR", "object": status}
	} else {
		w.WriteHeader(r.Code)
	}
	_ = json.NewEncoder(w).Encode(body) // the client may be gone
}

// cutter forwards the first bytes of a body and then aborts the response.
type cutter struct {
	http.ResponseWriter
	left int
	cut  func()
}

func (c *cutter) Write(b []byte) (int, error) {
	if len(b) < c.left {
		c.left -= len(b)
		return c.ResponseWriter.Write(b)
	}
	_, _ = c.ResponseWriter.Write(b[:c.left])
	_ = http.NewResponseController(c.ResponseWriter).Flush()
	c.cut()
	panic(http.ErrAbortHandler)
}

// Unwrap is for http.ResponseController.
func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
