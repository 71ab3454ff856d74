package kube

import (
	"fmt"
	"log/slog"
	"net/http"
	"sync"
)

// tokenTransport puts the token of a file on each request. The file is looked
// at (one stat) before each request, so a rotated token is used at once, and
// read again after a 401 whatever its time stamp says.
type tokenTransport struct {
	base http.RoundTripper
	path string
	log  *slog.Logger

	mu    sync.Mutex
	token string
	seen  stamp
	bad   error // why the file cannot be used now, nil when it can
}

// RoundTrip implements http.RoundTripper.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.current()
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	req = req.Clone(req.Context())
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := t.base.RoundTrip(req)
	if err == nil && resp.StatusCode == http.StatusUnauthorized {
		t.forget()
	}
	return resp, err
}

// current returns the newest token. While the file is missing, truncated or
// half written the last good one stays in use.
func (t *tokenTransport) current() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := stampOf(t.path)
	if err == nil && now == t.seen && t.bad == nil {
		return t.token, nil
	}
	var token string
	if err == nil {
		token, err = readToken(t.path)
	}
	if err != nil {
		if t.bad == nil || t.bad.Error() != err.Error() {
			t.log.Warn("the token file cannot be read, the last token stays in use", "file", t.path, "error", err)
		}
		t.bad = err
		if t.token == "" {
			return "", fmt.Errorf("no token: %w", err)
		}
		return t.token, nil
	}
	if t.token != "" && token != t.token {
		t.log.Info("the token file changed, the new token is in use", "file", t.path)
	}
	t.token, t.seen, t.bad = token, now, nil
	return token, nil
}

func (t *tokenTransport) forget() {
	t.mu.Lock()
	t.seen = stamp{}
	t.mu.Unlock()
}

// trouble says why the token file cannot be used now, nil when it can.
func (t *tokenTransport) trouble() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad
}
