package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Line makes a text one printable line: control characters, the C1 range,
// bidirectional overrides and invalid UTF-8 are escaped, space around it is cut.
func Line(s string) string { return escape(strings.TrimSpace(s), "") }

// Text is Line for a text of several lines, which it keeps.
func Text(s string) string { return escape(strings.TrimRight(s, " \t\r\n"), "\n\t") }

func escape(s, keep string) string {
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
