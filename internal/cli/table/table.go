// Package table writes tables. It escapes control characters in all texts.
package table

import (
	"io"
	"strings"

	"github.com/mattn/go-runewidth"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Write writes a header and rows. Each column is as wide as its widest cell; the last
// one is not padded.
func Write(w io.Writer, head []string, rows [][]string) error {
	widths := make([]int, len(head))
	all := append([][]string{head}, rows...)
	for _, row := range all {
		for i := range row {
			row[i] = text.Line(row[i])
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range all {
		line := ""
		for i, cell := range row {
			line += cell
			if i < len(row)-1 {
				line += strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell)+2)
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
