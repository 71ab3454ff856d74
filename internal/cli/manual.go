package cli

import (
	"fmt"
	"strings"
)

// Manual is the guide in Markdown, as a part of a page in docs.
func (g Guide) Manual() string {
	var b strings.Builder
	for _, c := range g.Commands {
		fmt.Fprintf(&b, "\n### %s\n\n    %s\n\n%s.\n", c.Name, c.Synopsis, strings.ToUpper(c.Short[:1])+c.Short[1:])
		if c.Long != "" {
			b.WriteString("\n" + c.Long + "\n")
		}
		flagTable(&b, c.Flags)
	}
	b.WriteString("\n### Flags of all commands\n")
	flagTable(&b, g.Flags)
	b.WriteString("\n### Environment\n\n| name | meaning |\n| --- | --- |\n")
	for _, e := range g.Environment {
		fmt.Fprintf(&b, "| `%s` | %s |\n", e.Name, e.Meaning)
	}
	b.WriteString("\n### Exit codes\n\n| code | meaning |\n| --- | --- |\n")
	for _, e := range g.Exits {
		fmt.Fprintf(&b, "| %d | %s |\n", e.Code, e.Meaning)
	}
	b.WriteString("\n")
	return b.String()
}

func flagTable(b *strings.Builder, flags []Flag) {
	if len(flags) == 0 {
		return
	}
	b.WriteString("\n| flag | meaning | default |\n| --- | --- | --- |\n")
	for _, f := range flags {
		name := "`--" + strings.TrimSpace(f.Name+" "+f.Value) + "`"
		if f.Letter != "" {
			name = "`-" + f.Letter + "`, " + name
		}
		fallback := ""
		if f.Default != "" {
			fallback = "`" + f.Default + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, strings.ReplaceAll(f.Meaning, "|", `\|`), fallback)
	}
}
