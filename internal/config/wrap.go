package config

import "strings"

// columns is what every terminal and every man page has.
const columns = 80

// wrap breaks text at blanks into lines of at most columns, each beginning with
// prefix. A word longer than that stays whole.
func wrap(prefix, text string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
			b.WriteString(prefix)
			width = len(prefix)
		case width+1+len(word) > columns:
			b.WriteString("\n" + prefix)
			width = len(prefix)
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	if width > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}
