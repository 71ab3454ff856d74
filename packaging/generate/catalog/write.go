package catalog

import (
	"fmt"
	"strings"
)

// columns is where journalctl -x has its right margin, less its own mark.
const columns = 76

// Write is the file for /usr/lib/systemd/catalog, as systemd's own are: one
// entry for each MESSAGE_ID.
func Write(kinds []Kind) string {
	var b strings.Builder
	b.WriteString("# Explanations of the journal records of clientmountd and nnf-dm, shown by\n# journalctl -x. Written by make generate from packaging/generate/catalog.\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "\n-- %s\nSubject: %s\nDefined-By: compute-daemons\nSupport: %s/issues\n", k.Event.ID, k.Subject, Home)
		for _, p := range k.Programs {
			fmt.Fprintf(&b, "Documentation: man:%s(8)\n", p)
		}
		b.WriteString("\n" + wrap(k.What) + "\n" + wrap("For the job: "+k.Job) + "\n" + wrap("What to do: "+k.Do))
	}
	return b.String()
}

// Table is the kinds as the Markdown table of docs/PROGRAM.md.
func Table(kinds []Kind) string {
	var b strings.Builder
	b.WriteString("\n| EVENT | MESSAGE_ID | level | what happened | for the job | what to do |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, k := range kinds {
		fmt.Fprintf(&b, "| `%s` | `%s` | %s | %s | %s | %s |\n", k.Event.Name, k.Event.ID, k.Level, cell(k.What), cell(k.Job), cell(k.Do))
	}
	b.WriteString("\n")
	return b.String()
}

func cell(s string) string { return strings.ReplaceAll(Named(s), "|", `\|`) }

func wrap(text string) string {
	var b strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
		case width+1+len(word) > columns:
			b.WriteByte('\n')
			width = 0
		default:
			b.WriteByte(' ')
			width++
		}
		b.WriteString(word)
		width += len(word)
	}
	return b.String() + "\n"
}
