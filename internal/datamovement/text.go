package datamovement

import (
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// quote makes a value of somebody else fit to print: short, in quotes, without
// control characters.
func quote(s string) string { return text.Quote(s) }

// only tells whether s is made of ASCII letters, digits and the given others.
func only(s, others string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !alnum(c) && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}

func alnum(c byte) bool { return letter(c) || digit(c) }

func letter(c byte) bool { return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func digit(c byte) bool { return c >= '0' && c <= '9' }

// dnsName tells whether s can be the name of an object: an RFC 1123 subdomain.
func dnsName(s string) bool {
	if len(s) == 0 || len(s) > 253 {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		if !dnsLabel(part) {
			return false
		}
	}
	return true
}

// dnsLabel tells whether s can be the name of a namespace: an RFC 1123 label.
func dnsLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := 0; i < len(s); i++ {
		if c := s[i]; !digit(c) && c != '-' && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// labelValue tells whether s can be the value of a label that is not empty.
func labelValue(s string) bool {
	return s != "" && len(s) <= 63 && alnum(s[0]) && alnum(s[len(s)-1]) && only(s, "._-")
}
