package kube

import (
	"bytes"
	"encoding/base64"
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
)

// tokenTransport adds the token of a file to each request. It checks the file for changes
// (one stat) before each request, so a rotated token is used immediately, and reads it
// again after a 401 even if it has not changed.
type tokenTransport struct {
	base http.RoundTripper
	path string
	log  *slog.Logger

	mu    sync.Mutex
	token string
	seen  stamp
	bad   error // why the file cannot be used now, or nil
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

// current returns the newest token. While the file is missing or invalid, for example
// incomplete, it returns the last valid token.
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
			t.log.Warn("the token file cannot be read; keeping the last token", "file", t.path, "error", err)
		}
		t.bad = err
		if t.token == "" {
			return "", fmt.Errorf("no token: %w", err)
		}
		return t.token, nil
	}
	if t.token != "" && token != t.token {
		t.log.Info("the token file has changed; using the new token", "file", t.path)
	}
	t.token, t.seen, t.bad = token, now, nil
	return token, nil
}

func (t *tokenTransport) forget() {
	t.mu.Lock()
	t.seen = stamp{}
	t.mu.Unlock()
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

// readSmall reads a regular file of at most limit bytes. O_NONBLOCK prevents a named pipe
// from blocking it.
func readSmall(path string, limit int64) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, limit)
	}
	return data, nil
}

// readToken returns a bearer token with white space trimmed. White space inside the token
// is an error, because it would corrupt the header.
func readToken(path string) (string, error) {
	data, err := readSmall(path, maxTokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	if Encoded(data) {
		return "", fmt.Errorf("%s %s", path, StillEncoded)
	}
	for _, r := range token {
		if r <= ' ' || r > '~' {
			return "", fmt.Errorf("%s is not a token: it contains white space or control characters", path)
		}
	}
	return token, nil
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
