package doctor

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/kube"
)

func encode(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// Errors as package net and crypto/tls return them.
var (
	refused       = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", unix.ECONNREFUSED)}
	notTLS  error = tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}
)

func lookupError(text string) error { return &net.DNSError{Err: text, Name: "api.example"} }

// write writes a file below a directory.
func write(t *testing.T, dir, name, content string, mode os.FileMode) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return file
}

// withToken returns credentials with a token, for an API server that is not contacted.
func withToken(t *testing.T, token string, r kube.Renewal) *credentials {
	t.Helper()
	dir := t.TempDir()
	file := write(t, dir, "token", token, 0o600)
	client, err := kube.Dial(kube.Options{Host: "api.example", Port: "6443", TokenFile: file, CertFile: write(t, dir, "cert", authority(), 0o644), Renewal: r})
	if err != nil {
		t.Fatal(err)
	}
	return &credentials{client: client, file: file}
}

// authority returns the certificate of the servers of package httptest.
func authority() string {
	s := httptest.NewTLSServer(http.NotFoundHandler())
	defer s.Close()
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// otherAuthority returns a certificate that no server here uses.
func otherAuthority(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}
