package fleet

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/mattn/go-runewidth"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

// Table writes rows under a head, as wide as they need to be. The last column
// is not filled up.
func Table(w io.Writer, head []string, rows [][]string) error {
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

// Write shows results as a table.
func Write(w io.Writer, results []Result) error {
	var rows [][]string
	for _, r := range results {
		rows = append(rows, []string{r.Node, string(r.State), clock(r), r.Text()})
	}
	return Table(w, []string{"NODE", "RESULT", "TIME", "WHAT"}, rows)
}

// Text is what there is to say of a result besides its state.
func (r *Result) Text() string {
	switch {
	case r.Cause != "" && r.Hint != "":
		return r.Cause + " (" + r.Hint + ")"
	case r.Cause != "":
		return r.Cause
	case len(r.Changes) == 0:
		return ""
	case len(r.Changes) <= 2:
		return strings.Join(r.Changes, ", ")
	}
	return fmt.Sprintf("%d changes", len(r.Changes))
}

func clock(r Result) string {
	if r.State == Skipped {
		return "-"
	}
	return fmt.Sprintf("%.1fs", r.Time.Round(100*time.Millisecond).Seconds())
}
