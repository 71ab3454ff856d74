package kube

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strings"
)

// Encoded tells whether a token or a CA certificate is still base64-encoded, as
// "kubectl get secret -o yaml" shows it: what is encoded is a JSON web token or
// PEM. It is false for everything else, whatever it may be.
func Encoded(data []byte) bool {
	text := strings.TrimRight(strings.Join(strings.Fields(string(data)), ""), "=") // base64(1) breaks lines
	decoded, err := base64.RawStdEncoding.DecodeString(text)
	return err == nil && (bytes.Contains(decoded, []byte("-----BEGIN ")) || isToken(decoded))
}

// isToken tells whether it has the form of a JSON web token.
func isToken(data []byte) bool {
	header, rest, ok := bytes.Cut(bytes.TrimSpace(data), []byte("."))
	object, err := base64.RawURLEncoding.DecodeString(string(header))
	return ok && bytes.Count(rest, []byte(".")) == 1 && err == nil && bytes.HasPrefix(bytes.TrimSpace(object), []byte("{"))
}

// StillEncoded is the text of errors about an encoded file or Secret.
const StillEncoded = "looks base64-encoded: decode it (base64 -d)"

// CheckEncoding returns an error for a token or CA file that is still
// base64-encoded. Files that cannot be read are not its matter.
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
