package authority

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func load(t *testing.T, dir string, newCA bool) *Keys {
	t.Helper()
	k, err := Load(dir, newCA)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func parse(t *testing.T, text []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(text)
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// trusted reports whether the server certificate is valid for the loopback address
// under the given authority.
func trusted(t *testing.T, k *Keys, ca []byte) bool {
	t.Helper()
	text, err := os.ReadFile(k.ServerCert)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	cert := parse(t, text)
	_, err = cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: "127.0.0.1"})
	return err == nil
}

func TestRestartKeepsAuthorityAndSigner(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	first := load(t, dir, false)
	second := load(t, dir, false)
	if !bytes.Equal(first.CA, second.CA) {
		t.Error("the authority changed")
	}
	if !first.Signer.Equal(second.Signer) {
		t.Error("the signing key changed, which invalidates tokens")
	}
	if !trusted(t, second, first.CA) {
		t.Error("the new server certificate is not signed by the old authority")
	}
}

func TestNewAuthority(t *testing.T) {
	dir := t.TempDir()
	first := load(t, dir, false)
	second := load(t, dir, true)
	if trusted(t, second, first.CA) || !trusted(t, second, second.CA) {
		t.Error("the server is trusted under the old authority or not under the new one")
	}
	if !first.Signer.Equal(second.Signer) {
		t.Error("the signing key changed with the authority")
	}
	if third := load(t, dir, false); !bytes.Equal(third.CA, second.CA) {
		t.Error("the new authority was not kept")
	}
}

func TestAdministratorIsInMasters(t *testing.T) {
	k := load(t, t.TempDir(), false)
	admin := parse(t, k.AdminCert)
	if len(admin.Subject.Organization) != 1 || admin.Subject.Organization[0] != "system:masters" {
		t.Errorf("subject %v", admin.Subject)
	}
	if err := admin.CheckSignatureFrom(parse(t, k.CA)); err != nil {
		t.Error(err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	dir := t.TempDir()
	load(t, dir, false)
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Fatalf("%v, %v; want 5 files", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v", e.Name(), info.Mode(), err)
		}
	}
}

func TestErrorsNameTheFile(t *testing.T) {
	for _, name := range []string{"ca.pem", "service-account.key"} {
		for _, content := range []string{"", "garbage", "-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n"} {
			dir := t.TempDir()
			load(t, dir, false)
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := Load(dir, false); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s with %q: %v; want an error with its name", name, content, err)
			}
		}
	}
}
