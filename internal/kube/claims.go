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
	Issued  time.Time // zero: not known
	UID     string    // of the service account; empty: not known
	Node    ObjectRef // Node without which the token is invalid; zero: none
	Bound   bool      // the token is invalid without another object than a Node
}

// ObjectRef refers to one object, in the form of a TokenRequest.
type ObjectRef struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

// Life returns how long the token is valid from its issue, 0 if that is not known.
func (c Claims) Life() time.Duration {
	if c.Issued.IsZero() || !c.Expires.After(c.Issued) {
		return 0
	}
	return c.Expires.Sub(c.Issued)
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
		Subject string          `json:"sub"`
		Expires *json.Number    `json:"exp"`
		Issued  json.RawMessage `json:"iat"`
		Private json.RawMessage `json:"kubernetes.io"`
	}
	if json.Unmarshal(data, &raw) != nil {
		return Claims{}, ErrNoClaims
	}
	c := Claims{Subject: raw.Subject}
	var issued *json.Number
	if json.Unmarshal(raw.Issued, &issued) == nil {
		c.Issued, _ = claimedTime(issued)
	}
	c.account(raw.Private)
	c.Expires, err = claimedTime(raw.Expires)
	return c, err
}

// account sets what the private claims of Kubernetes contain (pkg/serviceaccount/claims.go). It
// ignores claims that have another form.
func (c *Claims) account(private json.RawMessage) {
	var of struct {
		Account struct{ UID string } `json:"serviceaccount"`
		Node    struct{ Name, UID string }
		Pod     json.RawMessage
		Secret  json.RawMessage
	}
	if json.Unmarshal(private, &of) != nil {
		return
	}
	c.UID, c.Bound = printable(of.Account.UID), of.Pod != nil || of.Secret != nil
	if name := printable(of.Node.Name); name != "" {
		c.Node = ObjectRef{"v1", "Node", name, printable(of.Node.UID)}
	}
}

// claimedTime returns the time in a claim, zero for none. Fractions of a second are dropped.
func claimedTime(claim *json.Number) (time.Time, error) {
	if claim == nil {
		return time.Time{}, nil
	}
	seconds, err := claim.Float64()
	if err != nil || !(seconds >= 0 && seconds <= lastSecond) {
		return time.Time{}, ErrClaimedExpiry
	}
	return time.Unix(int64(seconds), 0).UTC(), nil
}

// ClaimsOf returns the claims of a token.
func ClaimsOf(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, ErrNoClaims
	}
	return ParseClaims(parts[1])
}

// ClaimsOfFile returns the claims of the token in a file.
func ClaimsOfFile(path string) (Claims, error) {
	token, err := readToken(path)
	if err != nil {
		return Claims{}, err
	}
	return ClaimsOf(token)
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

// SameAccount reports whether c and o are of the same account. An account that was deleted and
// created again is another one.
func (c Claims) SameAccount(o Claims) bool {
	return c.Subject != "" && c.Subject == o.Subject && (c.UID == "" || o.UID == "" || c.UID == o.UID)
}

// Newer reports whether c is of the same account as old and was issued after it.
func (c Claims) Newer(old Claims) bool { return c.SameAccount(old) && c.Issued.After(old.Issued) }
