package kube

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/safepath"
)

// tokenTransport adds a token to each request: that of a file, or a newer one for the same
// account that the daemon has requested itself. It checks the file for changes (one stat) before
// each request, so a rotated token is used immediately, and reads it again after a 401 even if it
// has not changed.
type tokenTransport struct {
	base    http.RoundTripper
	path    string
	log     *slog.Logger
	renewal Renewal

	// wake holds a value when the token in use, or what is known about the time, has changed.
	wake chan struct{}

	mu      sync.Mutex
	given   bearer // of the file
	seen    stamp
	bad     error // why the file cannot be used now, or nil
	renewed bearer
	stored  bool // renewed is in the state directory
	used    bearer
	refused string          // the token that the server has refused when it accepted the other one
	told    map[string]bool // the refused tokens that were logged
	ignored string          // why the stored token is not used, for the log
	server  serverTime
}

// bearer is a token with its claims, which are zero if it is not a JSON web token.
type bearer struct {
	text   string
	claims Claims
}

func newBearer(token string) bearer {
	claims, _ := ClaimsOf(token)
	return bearer{token, claims}
}

// newTokenTransport returns the transport for a token file, without its base.
func newTokenTransport(path string, o Options) *tokenTransport {
	return &tokenTransport{path: path, log: o.Log, renewal: o.Renewal, wake: make(chan struct{}, 1)}
}

// RoundTrip implements http.RoundTripper. If the server refuses one of two tokens, it repeats the
// request with the other one, and uses that from then on if the server accepts it. If the server
// refuses both, nothing changes: the goroutine that renews the token must not take this for a new
// token, which it would try immediately.
func (t *tokenTransport) RoundTrip(req *http.Request) (*http.Response, error) {
	token, err := t.current()
	if err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, err
	}
	resp, err := t.send(req, token, req.Body)
	if err != nil || resp.StatusCode != http.StatusUnauthorized {
		return resp, err
	}
	other, ok := t.other(token)
	if !ok || req.Body != nil && req.GetBody == nil {
		return resp, nil
	}
	body := req.Body
	if body != nil {
		if body, err = req.GetBody(); err != nil {
			return resp, nil
		}
	}
	resp.Body.Close()
	resp, err = t.send(req, other, body)
	if err == nil && resp.StatusCode != http.StatusUnauthorized && resp.StatusCode < http.StatusInternalServerError {
		t.replace(token, other)
	}
	return resp, err
}

func (t *tokenTransport) send(req *http.Request, token string, body io.ReadCloser) (*http.Response, error) {
	req = req.Clone(req.Context())
	req.Body = body
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := t.base.RoundTrip(req)
	if err == nil {
		t.noteTime(resp.Header.Get("Date"))
	}
	return resp, err
}

// current returns the token to use. While the file is missing or invalid, for example
// incomplete, the last valid token of the file stays in use.
func (t *tokenTransport) current() (string, error) {
	b, err := t.bearer()
	return b.text, err
}

// bearer is current with the claims of the token.
func (t *tokenTransport) bearer() (bearer, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := stampOf(t.path)
	if err == nil && now == t.seen && t.bad == nil {
		return t.used, nil
	}
	var token string
	if err == nil {
		token, err = readToken(t.path)
	}
	if err != nil {
		if t.bad == nil || t.bad.Error() != err.Error() {
			t.log.Warn("the token file cannot be read; keeping the last token", "file", t.path, "error", err)
		}
		t.bad = err
		if t.given.text == "" {
			return bearer{}, fmt.Errorf("no token: %w", err)
		}
		return t.used, nil
	}
	if t.given.text != "" && token != t.given.text {
		t.log.Info("the token file has changed; using the new token", "file", t.path)
	}
	changed := token != t.given.text
	t.given, t.seen, t.bad = newBearer(token), now, nil
	if changed {
		t.loadStored()
	}
	t.choose()
	return t.used, nil
}

// choose selects the token to use. The caller holds the lock.
func (t *tokenTransport) choose() {
	list := t.candidates()
	use := list[0]
	if len(list) > 1 && t.unusable(list[0]) && !t.unusable(list[1]) {
		use = list[1]
	}
	if use.text != t.used.text {
		t.used = use
		t.notify()
	}
}

// candidates returns the tokens for the account, the one that was issued last first.
func (t *tokenTransport) candidates() []bearer {
	switch {
	case t.renewed.text == "" || t.renewed.text == t.given.text || !t.renewed.claims.SameAccount(t.given.claims):
		return []bearer{t.given}
	case t.renewed.claims.Newer(t.given.claims):
		return []bearer{t.renewed, t.given}
	}
	return []bearer{t.given, t.renewed}
}

// unusable reports whether the server has refused the token, or it has expired.
func (t *tokenTransport) unusable(b bearer) bool { return t.refused == b.text || t.expired(b) }

func (t *tokenTransport) expired(b bearer) bool {
	now, known := t.server.now()
	return known && !b.claims.Expires.IsZero() && !now.Before(b.claims.Expires)
}

// other returns another token to try after the server has refused one. The file is read again for
// the next request.
func (t *tokenTransport) other(refused string) (token string, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.seen = stamp{}
	if t.used.text != refused { // by a concurrent request
		return t.used.text, true
	}
	for _, b := range t.candidates() {
		if b.text != refused && !t.expired(b) {
			return b.text, true
		}
	}
	return "", false
}

// replace notes that the server has refused a token, and accepted the other one.
func (t *tokenTransport) replace(refused, accepted string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.used.text != refused { // by a concurrent request
		return
	}
	t.refused = refused
	t.choose()
	if t.used.text == accepted && !t.told[refused] {
		t.told[refused] = true
		t.log.Warn("the API server refused the token; using the other one of this daemon", "file", t.where(refused), "other", t.where(accepted))
	}
}

// forgetRefused forgets which tokens the server has refused. The caller holds the lock.
func (t *tokenTransport) forgetRefused() { t.refused, t.told = "", map[string]bool{} }

// notify wakes the goroutine that renews the token.
func (t *tokenTransport) notify() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// secrets returns all tokens.
func (t *tokenTransport) secrets() []string {
	_, _ = t.current()
	t.mu.Lock()
	defer t.mu.Unlock()
	return []string{t.given.text, t.renewed.text}
}

// fileError returns why the token file cannot be used now, or nil.
func (t *tokenTransport) fileError() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.bad
}

// checkTokenFile reads the token once and checks whether other users can read it, because
// with the token they can act as this daemon.
func checkTokenFile(o Options) error {
	if _, err := readToken(o.TokenFile); err != nil {
		return err
	}
	info, err := os.Stat(o.TokenFile)
	if err != nil {
		return err
	}
	owner, group := os.Geteuid(), os.Getegid()
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		owner, group = int(st.Uid), int(st.Gid)
	}
	mode := info.Mode().Perm()
	if private(mode, group == os.Getegid() || o.isCredential(o.TokenFile)) {
		return nil
	}
	fix := "chmod 0600 " + o.TokenFile
	if owner != os.Geteuid() {
		fix = fmt.Sprintf("chgrp %d %s; chmod 0640 %s", os.Getegid(), o.TokenFile, o.TokenFile)
	}
	if o.Strict {
		return fmt.Errorf("%s is readable by users other than its owner (mode %04o), and strict_credentials is set; run %s", o.TokenFile, mode, fix)
	}
	o.Log.Warn("the token file is readable by users other than its owner: they can act as this daemon",
		"file", o.TokenFile, "mode", fmt.Sprintf("%04o", mode), "hint", fix)
	return nil
}

// private reports whether only the owner can use a file. If the group of the file is ours,
// the group may read it as well: root owns the token of a daemon with its own user.
func private(mode fs.FileMode, ours bool) bool {
	return mode&0o077 == 0 || ours && mode&0o037 == 0
}

// isCredential reports whether systemd provided the file (LoadCredential=). Then an access
// control list lets the daemon's user read it, which looks like a permission of the group.
func (o Options) isCredential(path string) bool {
	dir := o.Environ("CREDENTIALS_DIRECTORY")
	return dir != "" && strings.HasPrefix(filepath.Clean(path), filepath.Clean(dir)+"/")
}

// maxTokenFile and maxCertFile bound the size of the files, in bytes. Larger files are a
// mistake.
const (
	maxTokenFile = 64 << 10
	maxCertFile  = 1 << 20
)

// stamp identifies the state of a file. It also changes if the file is replaced by a
// rename or through a symbolic link within the granularity of the clock.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(path string) (stamp, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}, err
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return stamp{size: fi.Size()}, nil
	}
	return stamp{dev: uint64(st.Dev), ino: st.Ino, size: st.Size, mtime: st.Mtim, ctime: st.Ctim}, nil
}

// readSmall reads a regular file of at most limit bytes.
func readSmall(path string, limit int64) ([]byte, error) {
	return safepath.ReadFile(path, limit, 0, nil)
}

// readToken returns the bearer token in a file.
func readToken(path string) (string, error) {
	data, err := readSmall(path, maxTokenFile)
	if err != nil {
		return "", err
	}
	return parseToken(path, data)
}

// parseToken returns a bearer token with white space trimmed. White space inside the token
// is an error, because it would corrupt the header. path is for messages.
func parseToken(path string, data []byte) (string, error) {
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	if Encoded(data) {
		return "", fmt.Errorf("%s %s", path, StillEncoded)
	}
	if incomplete(token) {
		return "", fmt.Errorf("%s is incomplete: the token has no signature", path)
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", fmt.Errorf("%s is not a token: it contains white space or control characters", path)
		}
	}
	return token, nil
}

// incomplete reports whether a token is the start of a JSON web token. No API server accepts one
// without a signature.
func incomplete(token string) bool {
	first, rest, _ := strings.Cut(token, ".")
	data, err := base64.RawURLEncoding.DecodeString(first)
	var header struct {
		Algorithm string `json:"alg"`
	}
	if err != nil || json.Unmarshal(data, &header) != nil || header.Algorithm == "" {
		return false
	}
	_, signature, _ := strings.Cut(rest, ".")
	return signature == ""
}

// Encoded reports whether a token or a CA certificate is still base64-encoded, as "kubectl
// get secret -o yaml" shows it: the decoded data is a JSON web token or PEM. It returns
// false for any other data.
func Encoded(data []byte) bool {
	text := strings.TrimRight(strings.Join(strings.Fields(string(data)), ""), "=") // base64(1) breaks lines
	decoded, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && (bytes.Contains(decoded, []byte("-----BEGIN ")) || isToken(decoded))
}

// isToken reports whether data has the form of a JSON web token.
func isToken(data []byte) bool {
	header, rest, ok := bytes.Cut(bytes.TrimSpace(data), []byte("."))
	object, err := base64.RawURLEncoding.DecodeString(string(header))
	return ok && bytes.Count(rest, []byte(".")) == 1 && err == nil && bytes.HasPrefix(bytes.TrimSpace(object), []byte("{"))
}

// StillEncoded is the text of errors about a base64-encoded file or Secret.
const StillEncoded = "looks base64-encoded: decode it (base64 -d)"

// CheckEncoding returns an error for a token or CA file that is still
// base64-encoded. A file that cannot be read is not an error here.
func CheckEncoding(tokenFile, certFile string) error {
	for _, f := range []struct {
		path string
		most int64
	}{{tokenFile, maxTokenFile}, {certFile, maxCertFile}} {
		if f.path == "" {
			continue
		}
		if data, err := readSmall(f.path, f.most); err == nil && Encoded(data) {
			return fmt.Errorf("%s %s", f.path, StillEncoded)
		}
	}
	return nil
}
