package kube

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
)

// maxAccount bounds what a token may put into our messages.
const maxAccount = 256

// accountOfToken returns the sub claim of a JSON web token, such as
// "system:serviceaccount:nnf-system:nnf-clientmount"; empty when it is none.
// The signature is not looked at: the text only goes into messages.
func accountOfToken(token string) string {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return ""
	}
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(parts[1], "="))
	if err != nil {
		return ""
	}
	var claims struct {
		Sub string `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return ""
	}
	return printable(claims.Sub)
}

// accountOfCert returns the user name that a client certificate stands for.
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
