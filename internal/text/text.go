// Package text escapes and shortens untrusted text for terminals, log lines and
// messages, checks the characters of text, wraps lines, and suggests the nearest known
// word.
//
// It must not know the meaning of the text, and uses only the standard library.
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

// Escape escapes text that could control a terminal or forge a line: control characters,
// the C1 range, bidirectional overrides, invalid UTF-8. It does not change ordinary text
// of any script.
func Escape(s string) string { return escape(s, "") }

// Line trims white space and escapes.
func Line(s string) string { return escape(strings.TrimSpace(s), "") }

// Text is Line for text of several lines: it keeps line breaks, tabs and leading space.
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

// Only reports whether s consists of ASCII letters, digits and the given other characters.
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

// Cut returns at most the first limit bytes of s, without splitting a UTF-8 sequence.
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

// Clip is Cut with "…" appended if s is longer than limit, not counting the mark.
func Clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return Cut(s, limit) + "…"
}

// Shorten keeps the start and the end of a long message, because commands print the
// cause of a failure at either end. limit is in bytes.
func Shorten(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	const gap = " … (shortened) … "
	head, tail := limit*2/3, limit-limit*2/3-len(gap)
	for head > 0 && !utf8.RuneStart(s[head]) {
		head--
	}
	from := len(s) - tail
	for from < len(s) && !utf8.RuneStart(s[from]) {
		from++
	}
	return s[:head] + gap + s[from:]
}

// quoted is the maximum number of bytes of a value in Quote.
const quoted = 80

// Quote returns an untrusted value for a message: in double quotes, in ASCII with the
// escapes of Go, and with "..." at the end if it has more than 80 bytes.
func Quote(s string) string {
	if len(s) > quoted {
		s = Cut(s, quoted) + "..."
	}
	return strconv.QuoteToASCII(s)
}

// Unquoted is Quote without the quotes, for messages in a form that other programs expect.
func Unquoted(s string) string {
	q := Quote(s)
	return q[1 : len(q)-1]
}

// ShellWord returns s as one word for a shell: unchanged if it needs no quotes, otherwise in
// single quotes.
func ShellWord(s string) string {
	if s != "" && Only(s, "%+,-./:=@_") {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// JSON writes v as an indented document that is safe for terminals.
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

// ParseJSON decodes a document of the given version. It checks the field "version" first, because
// the layout of another version may differ.
func ParseJSON[T any](data []byte, version int) (*T, error) {
	var head struct {
		Version int `json:"version"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	if head.Version != version {
		return nil, fmt.Errorf("unsupported version %d (this program reads version %d)", head.Version, version)
	}
	document := new(T)
	if err := json.Unmarshal(data, document); err != nil {
		return nil, fmt.Errorf("invalid document: %w", err)
	}
	return document, nil
}

// JSONLine returns v as JSON on one line that is safe for terminals.
func JSONLine(v any) (string, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return "", err
	}
	return string(bytes.TrimSuffix(plainJSON(b.Bytes()), []byte("\n"))), nil
}

// plain reports whether s needs no escaping. It does not allocate, because this is the
// usual case.
func plain(s string) bool {
	for _, r := range s {
		if !strconv.IsPrint(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

// plainJSON escapes characters in encoded JSON that could control a terminal. Valid JSON
// contains them only in strings.
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

// Columns is the width of a small terminal, and of manual pages.
const Columns = 80

// Wrap breaks a text at white space into lines of at most columns characters. The first
// line starts with first, the others with rest. Longer words stay whole. Each line ends
// with a line break; an empty text has no lines.
func Wrap(columns int, first, rest, s string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(s) {
		n := utf8.RuneCountInString(word)
		switch {
		case width == 0:
			b.WriteString(first)
			width = utf8.RuneCountInString(first)
		case width+1+n > columns:
			b.WriteString("\n" + rest)
			width = utf8.RuneCountInString(rest)
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += n
	}
	if width > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}
