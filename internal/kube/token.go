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

// checkTokenFile reads the token once and checks which other users can read it: with
// the token they can act as this daemon.
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
	if private(mode, group == os.Getegid() || o.handedOver(o.TokenFile)) {
		return nil
	}
	mend := "chmod 0600 " + o.TokenFile
	if owner != os.Geteuid() {
		mend = fmt.Sprintf("chgrp %d %s; chmod 0640 %s", os.Getegid(), o.TokenFile, o.TokenFile)
	}
	if o.Strict {
		return fmt.Errorf("%s may be read by others than its owner (mode %04o), and strict_credentials is set; run %s", o.TokenFile, mode, mend)
	}
	o.Log.Warn("the token file may be read by others than its owner: whoever has it can act as this daemon",
		"file", o.TokenFile, "mode", fmt.Sprintf("%04o", mode), "hint", mend)
	return nil
}

// private reports whether only the owner can use a file. If its group is ours, the group
// may read it as well: root owns the token of a daemon that has a user of its own.
func private(mode fs.FileMode, ours bool) bool {
	return mode&0o077 == 0 || ours && mode&0o037 == 0
}

// handedOver reports whether systemd put the file there (LoadCredential=). It lets
// the daemon's user in by an access list, which looks like a group's right to read.
func (o Options) handedOver(path string) bool {
	dir := o.Environ("CREDENTIALS_DIRECTORY")
	return dir != "" && strings.HasPrefix(filepath.Clean(path), filepath.Clean(dir)+"/")
}

// Larger files are a mistake, and reading them could hurt.
const (
	maxTokenFile = 64 << 10
	maxCertFile  = 1 << 20
)

// stamp identifies the state of a file. It differs even if the file was replaced by a
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

// readSmall reads an ordinary file of at most limit bytes. O_NONBLOCK keeps a
// named pipe at that path from blocking us.
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
		return nil, fmt.Errorf("%s is not an ordinary file", path)
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

// readToken returns a bearer token, white space trimmed. A token with line
// breaks inside would end up as a broken header.
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
			return "", fmt.Errorf("%s does not look like a token: white space or control characters in it", path)
		}
	}
	return token, nil
}

// Encoded reports whether a token or a CA certificate is still base64-encoded, as
// "kubectl get secret -o yaml" shows it: what is encoded is a JSON web token or
// PEM. It is false for everything else, whatever it may be.
func Encoded(data []byte) bool {
	text := strings.TrimRight(strings.Join(strings.Fields(string(data)), ""), "=") // base64(1) breaks lines
	decoded, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && (bytes.Contains(decoded, []byte("-----BEGIN ")) || isToken(decoded))
}

// isToken reports whether it has the form of a JSON web token.
func isToken(data []byte) bool {
	header, rest, ok := bytes.Cut(bytes.TrimSpace(data), []byte("."))
	object, err := base64.RawURLEncoding.DecodeString(string(header))
	return ok && bytes.Count(rest, []byte(".")) == 1 && err == nil && bytes.HasPrefix(bytes.TrimSpace(object), []byte("{"))
}

// StillEncoded is the text of errors about an encoded file or Secret.
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
