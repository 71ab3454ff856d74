package credentials

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"time"
)

// claims are what a token says of itself. The API server checks the signature,
// we never do: they are for messages and for times.
type claims struct {
	Subject string
	Expires time.Time // zero: never, or not known
}

// claimsOf reads the middle part of a JSON web token; nothing of another one.
func claimsOf(token string) (c claims) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return c
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return c
	}
	var raw struct {
		Subject string  `json:"sub"`
		Expires float64 `json:"exp"`
	}
	if json.Unmarshal(payload, &raw) != nil {
		return c
	}
	c.Subject = raw.Subject
	if raw.Expires > 0 && raw.Expires < 1<<40 {
		c.Expires = time.Unix(int64(raw.Expires), 0)
	}
	return c
}
