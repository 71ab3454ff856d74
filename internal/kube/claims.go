// Package kube reads what a token says of itself (RFC 7519), for messages and
// for times: the API server checks the signature, we never do. A token comes from
// elsewhere, so nothing in it is believed before it is within its bounds.
package kube

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"time"
)

// Claims are those that are used here.
type Claims struct {
	Subject string
	Expires time.Time // zero: the token does not expire
}

// ErrNone reports a text that is not the claims of a token.
var ErrNone = errors.New("not the claims of a token")

// ErrExpiry reports an expiry that is no date between the years 1970 and 9999:
// no other one can be written in JSON and in RFC 3339.
var ErrExpiry = errors.New("its expiry is not a valid date")

// last is the last second of the year 9999.
const last = 253402300799

// Parse reads the middle part of a token. With ErrExpiry the other claims are
// valid.
func Parse(part string) (Claims, error) {
	data, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(part, "="))
	if err != nil {
		return Claims{}, ErrNone
	}
	var raw struct {
		Subject string       `json:"sub"`
		Expires *json.Number `json:"exp"`
	}
	if json.Unmarshal(data, &raw) != nil {
		return Claims{}, ErrNone
	}
	c := Claims{Subject: raw.Subject}
	if raw.Expires == nil {
		return c, nil
	}
	seconds, err := raw.Expires.Float64()
	if err != nil || !(seconds >= 0 && seconds <= last) {
		return c, ErrExpiry
	}
	c.Expires = time.Unix(int64(seconds), 0).UTC()
	return c, nil
}

// Of reads the claims of a whole token.
func Of(token string) (Claims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return Claims{}, ErrNone
	}
	return Parse(parts[1])
}
