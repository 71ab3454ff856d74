package lab

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Rule makes the proxy answer some requests otherwise. Of several rules that
// fit the first is used.
type Rule struct {
	Class string // of requests; empty for all
	Times int    // use it so often; 0 means always

	Delay      time.Duration // before anything else
	Code       int           // answer this instead of asking the server: 401, 403, 410, 429, 500, 503 ...
	RetryAfter int           // seconds, with Code
	ErrorEvent bool          // with Code, on a watch: answer 200 and one ERROR event of that code
	Raw        string        // with Code: this text instead of a status object
	CutAfter   int           // end the answer abnormally after so many bytes of its body
	Reset      bool          // with CutAfter: break the whole connection and not just the stream

	used int
}

// Set adds a rule.
func (p *Proxy) Set(r Rule) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rules = append(p.rules, &r)
}

// Clear removes all rules and ends Down and HalfOpen; Refuse needs Accept.
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

// answer writes the status object that an API server would send.
func (r *Rule) answer(w http.ResponseWriter, watch bool) {
	status := map[string]any{
		"kind": "Status", "apiVersion": "v1", "metadata": map[string]any{}, "status": "Failure",
		"code": r.Code, "reason": reasons[r.Code], "message": fmt.Sprintf("lab: told to answer %d", r.Code),
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

// cutter passes a body on until its allowance is used up.
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

// Unwrap lets the response controller find Flush.
func (c *cutter) Unwrap() http.ResponseWriter { return c.ResponseWriter }
