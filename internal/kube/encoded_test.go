package kube

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const somePEM = "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgI=\n-----END CERTIFICATE-----\n"

// wrapped is what base64(1) prints.
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

// The daemon's own message names an encoded file as that.
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
