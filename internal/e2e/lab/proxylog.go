package lab

import (
	"bytes"
	"context"
	"io"
	"net/http"
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

// Request is one request that reached the proxy.
type Request struct {
	Time            time.Time
	Class           string
	Method          string
	Path            string // without query
	Query           string
	ResourceVersion string // of a list or watch
	ContentType     string
	UserAgent       string
	Proto           string
	Body            []byte // of a write, its first 64 KiB

	code atomic.Int64
	sent atomic.Int64
	over atomic.Bool
}

// Code returns the status that was answered, 0 while there is none.
func (r *Request) Code() int { return int(r.code.Load()) }

// Sent returns the bytes of the answer's body so far.
func (r *Request) Sent() int64 { return r.sent.Load() }

// Over tells whether the answer has ended, or the client has gone: a watch that
// is not over is alive.
func (r *Request) Over() bool { return r.over.Load() }

// Class tells what a request asks for.
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

// Requests returns what came so far.
func (p *Proxy) Requests() []*Request { return p.requests.all() }

// ClearRequests forgets what came so far.
func (p *Proxy) ClearRequests() { p.requests.clear() }

// Count returns how many requests of the classes came; of all without any.
func (p *Proxy) Count(classes ...string) (n int) {
	for _, r := range p.Requests() {
		fits := len(classes) == 0
		for _, c := range classes {
			fits = fits || c == r.Class
		}
		if fits {
			n++
		}
	}
	return n
}

// WaitRequest returns the first request that fits, past or future.
func (p *Proxy) WaitRequest(ctx context.Context, fits func(*Request) bool) (*Request, error) {
	return p.requests.wait(ctx, fits)
}

// handler logs a request, applies the rules and passes it on.
func (p *Proxy) handler(forward http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		entry := &Request{
			Time: time.Now(), Class: Class(r), Method: r.Method, Path: r.URL.Path, Query: r.URL.RawQuery, Proto: r.Proto,
			ResourceVersion: r.URL.Query().Get("resourceVersion"), ContentType: r.Header.Get("Content-Type"), UserAgent: r.UserAgent(),
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

// meter notes the code and counts the bytes of an answer.
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

// Unwrap lets the response controller find Flush.
func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }
