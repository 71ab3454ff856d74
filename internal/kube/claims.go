package kube

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"strings"
	"time"
)

// maxAccount bounds the account name from a token in our messages, in bytes.
const maxAccount = 256

// Claims are the claims of a JSON web token (RFC 7519), for messages and expiry times. The
// API server checks the signature, this package does not. Tokens are untrusted input, so
// claims are bounded.
type Claims struct {
	Subject string
	Expires time.Time // zero: the token does not expire
}

// ErrNoClaims reports a text that is not valid token claims.
var ErrNoClaims = errors.New("not valid token claims")

// ErrClaimedExpiry reports an expiry outside the years 1970 to 9999, which JSON and RFC
// 3339 cannot represent.
var ErrClaimedExpiry = errors.New("its expiry is not a valid date")

// lastSecond is the last second of the year 9999.
const lastSecond = 253402300799

// ParseClaims parses the middle part of a token. If the error is ErrClaimedExpiry, the
// other claims are valid.
func ParseClaims(part string) (Claims, error) {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	if err != nil {
		return Claims{}, ErrNoClaims
	}
	var raw struct {
		Subject string       `json:"sub"`
		Expires *json.Number `json:"exp"`
	}
	if json.Unmarshal(data, &raw) != nil {
		return Claims{}, ErrNoClaims
	}
	c := Claims{Subject: raw.Subject}
	if raw.Expires == nil {
		return c, nil
	}
	seconds, err := raw.Expires.Float64()
	if err != nil || !(seconds >= 0 && seconds <= lastSecond) {
		return c, ErrClaimedExpiry
	}
	c.Expires = time.Unix(int64(seconds), 0).UTC()
	return c, nil
}

// ClaimsOf returns the claims of a token.
func ClaimsOf(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, ErrNoClaims
	}
	return ParseClaims(parts[1])
}

// accountOfToken returns the sub claim of a token, such as
// "system:serviceaccount:nnf-system:nnf-clientmount", or "".
func accountOfToken(token string) string {
	c, _ := ClaimsOf(token)
	return printable(c.Subject)
}

// accountOfCert returns the user name in a client certificate.
func accountOfCert(data []byte) string {
	block, _ := pem.Decode(data)
	if block == nil {
		return ""
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return ""
	}
	return printable(c.Subject.CommonName)
}

// printable returns s if it is a short text of printable ASCII, otherwise "".
func printable(s string) string {
	if len(s) > maxAccount {
		return ""
	}
	for _, r := range s {
		if r < ' ' || r > '~' {
			return ""
		}
	}
	return s
}
