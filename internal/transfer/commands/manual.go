package commands

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"
)

// Manual is the reference for docs/nnf-dmctl.md, from what the program itself
// goes by: synopses, flags, environment and exit codes.
func Manual() string {
	var b strings.Builder
	for _, c := range commands {
		fmt.Fprintf(&b, "\n### %s\n\n    %s\n\n%s.\n", c.name, c.synopsis(), strings.ToUpper(c.short[:1])+c.short[1:])
		if c.long != "" {
			b.WriteString("\n" + c.long + "\n")
		}
		flagTable(&b, c.ownFlags())
	}
	b.WriteString("\n### Flags of all commands\n")
	s := defaults(nil)
	all := s.flagSet("")
	all.BoolP("help", "h", false, "show the help of the command")
	flagTable(&b, all)
	b.WriteString("\n### Environment\n\n| name | meaning |\n| --- | --- |\n")
	for _, e := range environment {
		fmt.Fprintf(&b, "| `%s` | %s |\n", e.name, e.meaning)
	}
	b.WriteString("\n### Exit codes\n\n| code | meaning |\n| --- | --- |\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "| %d | %s |\n", e.code, e.meaning)
	}
	b.WriteString("\n`status`, `wait` and `copy --wait` end with the code for the copies that have ended: a failed one counts more than one that\nwas deleted, and that more than a cancelled one.\n\n")
	return b.String()
}

func flagTable(b *strings.Builder, flags *pflag.FlagSet) {
	if !flags.HasFlags() {
		return
	}
	b.WriteString("\n| flag | meaning | default |\n| --- | --- | --- |\n")
	flags.VisitAll(func(f *pflag.Flag) {
		value, meaning := pflag.UnquoteUsage(f)
		name := "`--" + strings.TrimSpace(f.Name+" "+value) + "`"
		if f.Shorthand != "" {
			name = "`-" + f.Shorthand + "`, " + name
		}
		fallback := ""
		switch f.DefValue {
		case "", "false", "0s":
		default:
			fallback = "`" + f.DefValue + "`"
		}
		fmt.Fprintf(b, "| %s | %s | %s |\n", name, strings.ReplaceAll(meaning, "|", `\|`), fallback)
	})
}
