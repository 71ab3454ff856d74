package text

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Escape escapes what could steer a terminal or forge a line: control
// characters, the C1 range, bidirectional overrides, invalid UTF-8. Ordinary
// text of any script stays as it is.
func Escape(s string) string { return escape(s, "") }

// Line is Escape without the space around a text.
func Line(s string) string { return escape(strings.TrimSpace(s), "") }

// Text is Line for a text of several lines, which it keeps.
func Text(s string) string { return escape(strings.TrimRight(s, " \t\r\n"), "\n\t") }

func escape(s, keep string) string {
	if plain(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case strconv.IsPrint(r) || strings.ContainsRune(keep, r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += size
	}
	return b.String()
}

// plain is the usual case, which costs no memory.
func plain(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// plainJSON escapes in encoded JSON what a terminal might act on. In valid JSON
// such characters stand in strings only.
func plainJSON(data []byte) []byte {
	var b strings.Builder
	for _, r := range string(data) {
		switch hi, lo := utf16.EncodeRune(r); {
		case r == '\n' || strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}
