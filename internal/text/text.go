// Package text makes text from outside the program safe and short enough for a
// terminal, a log line or a message, checks what characters it is made of, and finds
// the word that a misspelled one probably means.
//
// It must not know what the text is about, and uses the standard library only.
package text

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
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

// Only reports whether s is made of ASCII letters, digits and the given others.
func Only(s, others string) bool {
	for i := 0; i < len(s); i++ {
		if !Alphanumeric(s[i]) && strings.IndexByte(others, s[i]) < 0 {
			return false
		}
	}
	return true
}

// Alphanumeric reports whether c is an ASCII letter or digit.
func Alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Cut returns the first limit bytes of s, or fewer so that no UTF-8 sequence is
// cut in two. A shorter s is returned as it is.
func Cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > 0 && limit-end < utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}

// Clip is Cut with "…" after a text that was longer. The mark comes on top of
// limit.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return Cut(s, limit) + "…"
}

// quoted is how many bytes of a value Quote shows.
const quoted = 80

// Quote returns a value of the user, of an object or of a file for use in a
// message: in double quotes, in ASCII with Go's escapes, and with "..." at the end
// if it has more than 80 bytes.
func Quote(s string) string {
	if len(s) > quoted {
		s = Cut(s, quoted) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// Unquoted returns what Quote returns, without the quotes: for messages whose form other
// programs expect.
func Unquoted(s string) string {
	q := Quote(s)
	return q[1 : len(q)-1]
}

// ShellWord returns s as one word of a shell line: unchanged if no shell would change it,
// else in single quotes.
func ShellWord(s string) string {
	if s != "" && Only(s, "%+,-./:=@_") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// JSON writes v as one indented document. Nothing in it can steer a terminal.
func JSON(w io.Writer, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(plainJSON(b.Bytes()))
	return err
}

// plain tells whether nothing has to be escaped. This is the usual case, and it
// allocates no memory.
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
