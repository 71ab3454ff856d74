package kube

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io/fs"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// replace replaces a file by a rename, as an installer does.
func replace(t *testing.T, path, content string) {
	t.Helper()
	if err := os.Rename(write(t, filepath.Dir(path), "new", content, 0o600), path); err != nil {
		t.Fatal(err)
	}
}

func TestTokenRotation(t *testing.T) {
	s := newServer(t)
	s.other = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, object("a", "1")) }
	o := s.options()
	one, two := jwt(account), jwt("system:serviceaccount:x:two")
	s.tokens = map[string]bool{one: true}
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	get := func() error { return c.Get(t.Context(), clientMounts, "c1", "a", nil) }
	if err := get(); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.tokens = map[string]bool{two: true}
	s.mu.Unlock()
	if err := get(); !apierrors.IsUnauthorized(err) || !strings.Contains(err.Error(), account) {
		t.Fatalf("old token: %v", err)
	}
	// If the file is missing, empty or incomplete, the old token stays in use, and the
	// message about the rejected credentials contains the problem of the file.
	for _, content := range []string{"", "half\nwritten", two[:len(two)-5]} {
		replace(t, o.TokenFile, content)
		if err := get(); !apierrors.IsUnauthorized(err) || !strings.Contains(err.Error(), "the token file cannot be read") {
			t.Fatalf("%q: %v", content, err)
		}
	}
	os.Remove(o.TokenFile)
	if err := get(); !apierrors.IsUnauthorized(err) || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("gone: %v", err)
	}
	write(t, filepath.Dir(o.TokenFile), "token", " "+two+"\n", 0o600)
	if err := get(); err != nil {
		t.Fatalf("the new token is not used immediately: %v", err)
	}
	if c.Account() != "system:serviceaccount:x:two" {
		t.Errorf("account %q", c.Account())
	}
}

// A token that is written in place within the granularity of the clock may leave size and
// times unchanged. It is still read again after a 401.
func TestTokenReadAgainAfter401(t *testing.T) {
	path := write(t, t.TempDir(), "token", "one", 0o600)
	tt := newTokenTransport(path, Options{Log: slog.New(slog.DiscardHandler)})
	tt.base = roundTripper(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 401, Body: http.NoBody}, nil
	})
	if _, err := tt.current(); err != nil {
		t.Fatal(err)
	}
	tt.given, tt.used = newBearer("stale"), newBearer("stale")
	req, _ := http.NewRequest("GET", "https://h/", nil)
	if _, err := tt.RoundTrip(req); err != nil {
		t.Fatal(err)
	}
	if got, _ := tt.current(); got != "one" {
		t.Errorf("token %q is still in use", got)
	}
	if req.Header.Get("Authorization") != "" {
		t.Error("the caller's request was changed")
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// serverCert returns a new self-signed certificate for 127.0.0.1 that is valid now, and its PEM.
func serverCert(t *testing.T) (tls.Certificate, string) {
	t.Helper()
	return serverCertFor(t, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
}

// serverCertFor is serverCert with another validity.
func serverCertFor(t *testing.T, from, to time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "api"}, IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: from, NotAfter: to}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

func TestCARotation(t *testing.T) {
	s := newServer(t)
	s.other = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, object("a", "1")) }
	o := s.options()
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	get := func() error { return c.Get(t.Context(), clientMounts, "c1", "a", nil) }
	if err := get(); err != nil {
		t.Fatal(err)
	}
	// The server restarts with a certificate of another CA.
	fresh, caPEM := serverCert(t)
	addr := s.Listener.Addr().String()
	s.CloseClientConnections()
	s.Close()
	l, err := tls.Listen("tcp", addr, &tls.Config{Certificates: []tls.Certificate{fresh}})
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go hs.Serve(l)
	t.Cleanup(func() { hs.Close() })
	if err := get(); err == nil || !strings.Contains(err.Error(), "CA certificate of this cluster") {
		t.Fatalf("the old CA accepts the new server: %v", err)
	}
	replace(t, o.CertFile, "half")
	if err := get(); err == nil {
		t.Fatal("with an invalid CA file, every server is accepted")
	}
	replace(t, o.CertFile, caPEM)
	if err := get(); err != nil {
		t.Fatalf("the new CA is not used immediately: %v", err)
	}
}

// serveTLS starts a server with a certificate, and returns the options of its client.
func serveTLS(t *testing.T, config *tls.Config, caPEM string) Options {
	t.Helper()
	s := newServer(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", config)
	if err != nil {
		t.Fatal(err)
	}
	hs := &http.Server{Handler: http.HandlerFunc(s.serve), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go hs.Serve(l)
	t.Cleanup(func() { hs.Close() })
	o := s.options()
	_, o.Port, _ = net.SplitHostPort(l.Addr().String())
	replace(t, o.CertFile, caPEM)
	return o
}

// If the certificate is valid at another time only, the error has the time that the clock of the
// node reads, and is not about the CA.
func TestClockOutsideValidity(t *testing.T) {
	now := time.Now().Truncate(time.Second).UTC()
	date := func(years int) time.Time { return now.AddDate(years, 0, 0) }
	for _, tt := range []struct {
		name     string
		from, to time.Time
		text     string
	}{
		{"clock ahead", date(-9), date(-4), "but the certificate of the API server expired at " + date(-4).Format(time.RFC3339)},
		{"clock behind", date(4), date(9), "but the certificate of the API server is valid only from " + date(4).Format(time.RFC3339)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cert, caPEM := serverCertFor(t, tt.from, tt.to)
			c, err := Dial(serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}}, caPEM))
			if err != nil {
				t.Fatal(err)
			}
			err = c.Get(t.Context(), clientMounts, "c1", "a", nil)
			if err == nil || !strings.Contains(err.Error(), tt.text) || strings.Contains(err.Error(), "CA certificate") {
				t.Fatalf("got %v", err)
			}
			_, reads, _ := strings.Cut(err.Error(), "the clock of this node reads ")
			reads, _, _ = strings.Cut(reads, ", ")
			if at, parseErr := time.Parse(time.RFC3339, reads); parseErr != nil || at.Before(now) || at.After(time.Now()) {
				t.Errorf("the clock reads %q in %v", reads, err)
			}
			if untrusted := (&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}); SameKind(err, untrusted) || !SameKind(err, err) {
				t.Error("it needs the same action as a wrong CA")
			}
		})
	}
}

func TestOldTLSIsRejected(t *testing.T) {
	fresh, caPEM := serverCert(t)
	o := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{fresh}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, caPEM)
	c, err := Dial(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), clientMounts, "c1", "a", nil); err == nil || !strings.Contains(err.Error(), "protocol version") {
		t.Errorf("got %v", err)
	}
}

// The kernel detects half-open connections.
func TestSocketOptions(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name              string
		level, opt, value int
	}{
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 60},
		{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
		{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3},
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 45000},
	} {
		got, gerr := 0, error(nil)
		err := raw.Control(func(fd uintptr) { got, gerr = unix.GetsockoptInt(int(fd), o.level, o.opt) })
		if err != nil || gerr != nil || got != o.value {
			t.Errorf("%s is %d (%v, %v), want %d", o.name, got, err, gerr, o.value)
		}
	}
}

func TestPingTimes(t *testing.T) {
	env := map[string]string{}
	get := func(k string) string { return env[k] }
	if idle, _ := pingTimes(get); idle != 0 {
		t.Errorf("pings every %v although no variable is set", idle)
	}
	env["HTTP2_READ_IDLE_TIMEOUT_SECONDS"], env["HTTP2_PING_TIMEOUT_SECONDS"] = "20", "60"
	if idle, answer := pingTimes(get); idle != 20*time.Second || answer != time.Minute {
		t.Errorf("got %v, %v", idle, answer)
	}
	env["HTTP2_READ_IDLE_TIMEOUT_SECONDS"] = "-3"
	if idle, _ := pingTimes(get); idle != 0 {
		t.Errorf("got %v", idle)
	}
}

// The first requests of a client share one HTTP/2 connection.
func TestOneConnection(t *testing.T) {
	s := newServer(t)
	proto := make(chan string, 10)
	addr := make(chan string, 10)
	note := func(h handler) handler {
		return func(w http.ResponseWriter, r *http.Request) { proto <- r.Proto; addr <- r.RemoteAddr; h(w, r) }
	}
	s.list = note(s.list)
	s.watch = []handler{note(sendFrames("hold", event("ADDED", "z", "20")))}
	v := s.start(s.dial(), WatchOptions{})
	v.want(t, "upsert z")
	if a, b := <-addr, <-addr; a != b {
		t.Errorf("two connections: %s and %s", a, b)
	}
	if p := <-proto; p != "HTTP/2.0" {
		t.Errorf("protocol %s", p)
	}
}

func TestPrivate(t *testing.T) {
	for _, tt := range []struct {
		mode        fs.FileMode
		ours, other bool // what private returns if the group is ours, and if it is not
	}{
		{0o600, true, true}, {0o400, true, true}, {0o000, true, true}, {0o700, true, true},
		{0o640, true, false}, {0o440, true, false},
		{0o660, false, false}, {0o620, false, false}, {0o650, false, false},
		{0o644, false, false}, {0o604, false, false}, {0o601, false, false}, {0o602, false, false}, {0o666, false, false},
	} {
		if got := private(tt.mode, true); got != tt.ours {
			t.Errorf("%04o, our group: %v", tt.mode, got)
		}
		if got := private(tt.mode, false); got != tt.other {
			t.Errorf("%04o, another group: %v", tt.mode, got)
		}
	}
}

// Owner and mode of the token file, with and without strict mode.
func TestTokenFileModes(t *testing.T) {
	const other = 4242 // a group that this process is not in
	for _, tt := range []struct {
		name        string
		mode        os.FileMode
		owner       int // 0: ours
		group       int
		credentials bool   // the file is in the credentials directory of systemd
		says        string // the hint; "": no problem
	}{
		{name: "owner alone", mode: 0o600},
		{name: "the daemon's group", mode: 0o640},
		{name: "the daemon's group may write", mode: 0o660, says: "chmod 0600 "},
		{name: "everybody", mode: 0o644, says: "chmod 0600 "},
		{name: "another group", mode: 0o640, group: other, says: "chmod 0600 "},
		{name: "another group, without permission", mode: 0o600, group: other},
		{name: "another owner, our group", mode: 0o640, owner: other},
		{name: "another owner, world-readable", mode: 0o644, owner: other, says: fmt.Sprintf("chgrp %d ", os.Getegid())},
		{name: "provided by systemd", mode: 0o440, group: other, credentials: true},
		{name: "provided by systemd, world-readable", mode: 0o444, group: other, credentials: true, says: "chmod 0600 "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			token := jwt(account)
			path := write(t, dir, "token", token, 0o600)
			if tt.owner+tt.group > 0 {
				if os.Geteuid() != 0 {
					t.Skip("not run: only root can change the owner of a file")
				}
				if err := os.Chown(path, tt.owner, tt.group); err != nil {
					t.Fatal(err)
				}
				if tt.group == 0 {
					if err := os.Chown(path, tt.owner, os.Getegid()); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			environ := func(name string) string {
				if tt.credentials && name == "CREDENTIALS_DIRECTORY" {
					return dir
				}
				return ""
			}
			for _, strict := range []bool{false, true} {
				var log bytes.Buffer
				err := checkTokenFile(Options{TokenFile: path, Strict: strict, Environ: environ, Log: slog.New(slog.NewTextHandler(&log, nil))})
				said := log.String()
				if strict && err != nil {
					said = err.Error()
				}
				if (err != nil) != (strict && tt.says != "") || (said == "") != (tt.says == "") || !strings.Contains(said, tt.says) || strings.Contains(said, token) {
					t.Errorf("strict %v: %v, log %s", strict, err, log.String())
				}
			}
		})
	}
}

// A token of which only the start was written is refused before the server is asked.
func TestIncomplete(t *testing.T) {
	token := jwt(account)
	header, _, _ := strings.Cut(token, ".")
	for text, want := range map[string]bool{
		token: false, token[:len(token)-1]: false, // the length of a signature is not known
		strings.TrimSuffix(token, token[strings.LastIndex(token, ".")+1:]): true,
		token[:strings.LastIndex(token, ".")]:                              true, token[:strings.LastIndex(token, ".")-5]: true, header + ".": true, header: true,
		"abcdef.0123456789abcdef": false, "c2VjcmV0": false, base64.RawURLEncoding.EncodeToString([]byte(`{"kind":"x"}`)): false, "a.b": false, ".": false,
	} {
		_, err := parseToken("/x/token", []byte(text+"\n"))
		if want != (err != nil) || want && err.Error() != "/x/token is incomplete: the token has no signature" {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The error for refused credentials has how a new token takes effect.
func TestRefusedCredential(t *testing.T) {
	s := newServer(t)
	s.tokens = map[string]bool{}
	o := s.options()
	for directory, want := range map[string]string{
		"": "a renewed token file takes effect without a restart", filepath.Dir(o.TokenFile): "takes effect when the service is restarted",
	} {
		o.Environ = func(name string) string { return map[string]string{"CREDENTIALS_DIRECTORY": directory}[name] }
		c, err := Dial(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Get(t.Context(), clientMounts, "c1", "a", nil); !apierrors.IsUnauthorized(err) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%q: %v", directory, err)
		}
	}
}

// The exception does not apply to a directory whose name only has the same prefix.
func TestIsCredential(t *testing.T) {
	for path, want := range map[string]bool{
		"/run/credentials/x.service/token": true, "/run/credentials/x.service": false, "/run/credentials/x.service-2/token": false,
		"/run/credentials/x.service/../token": false, "token": false,
	} {
		o := Options{Environ: func(string) string { return "/run/credentials/x.service/" }}
		if got := o.isCredential(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
		o.Environ = func(string) string { return "" }
		if o.isCredential(filepath.Join("/", path)) {
			t.Errorf("%s without the variable", path)
		}
	}
}

const somePEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgI=\n-----END CERTIFICATE-----\n"

// wrapped returns the output of base64(1).
func wrapped(text string) string {
	encoded := base64.StdEncoding.EncodeToString([]byte(text))
	var lines []string
	for ; len(encoded) > 76; encoded = encoded[76:] {
		lines = append(lines, encoded[:76])
	}
	return strings.Join(append(lines, encoded), "\n") + "\n"
}

func TestEncoded(t *testing.T) {
	token := jwt(account)
	for _, tt := range []struct {
		name, text string
		want       bool
	}{
		{"token", token, false},
		{"token with a line feed", token + "\n", false},
		{"encoded token", base64.StdEncoding.EncodeToString([]byte(token)), true},
		{"encoded token, in lines", wrapped(token), true},
		{"encoded token with a line feed inside", wrapped(token + "\n"), true},
		{"CA", somePEM, false},
		{"CA bundle", somePEM + somePEM, false},
		{"encoded CA", base64.StdEncoding.EncodeToString([]byte(somePEM)), true},
		{"encoded CA, in lines", wrapped(somePEM + somePEM), true},
		{"encoded CA without padding", strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(somePEM)), "="), true},
		{"opaque token that is base64 by chance", "c2VjcmV0c2VjcmV0", false},
		{"bootstrap token", "abcdef.0123456789abcdef", false},
		{"hexadecimal", "0123456789abcdef0123456789abcdef", false},
		{"nothing", "", false},
		{"binary", "\x00\xff", false},
	} {
		if got := Encoded([]byte(tt.text)); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// The error for an encoded file says that it is encoded.
func TestEncodedFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"token": jwt(account), "ca": somePEM} {
		for file, text := range map[string]string{name: text, name + ".base64": wrapped(text)} {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, tt := range []struct{ token, ca, want string }{
		{at("token"), at("ca"), ""},
		{"", "", ""},
		{at("none"), dir, ""},
		{at("token.base64"), at("ca"), at("token.base64") + " looks base64-encoded: decode it (base64 -d)"},
		{at("token"), at("ca.base64"), at("ca.base64") + " looks base64-encoded: decode it (base64 -d)"},
	} {
		err := CheckEncoding(tt.token, tt.ca)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || err.Error() != tt.want) {
			t.Errorf("%v", err)
		}
		if tt.want == "" {
			continue
		}
		_, err = Dial(Options{Host: "h", Port: "1", TokenFile: tt.token, CertFile: tt.ca, Service: "DWS client mount service"})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v", err)
		}
	}
}
