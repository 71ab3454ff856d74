package config

import (
	"fmt"
	"io"
	"strings"
)

// Usage writes the help for the command line: the flags by section, in at most
// 80 columns, each with its default and its name in the environment.
func Usage(w io.Writer, t *Table) error {
	var b strings.Builder
	b.WriteString(wrap("", t.Summary))
	if len(t.Synopsis) > 0 {
		b.WriteString("\nUsage:\n")
		for _, line := range t.Synopsis {
			b.WriteString("  " + line + "\n")
		}
	}
	b.WriteString("\nFlags:\n")
	flagHelp(&b, "--"+configFlag+" FILE", fmt.Sprintf("The configuration file, with config.d beside it (default %s).", t.File))
	flagHelp(&b, "-h, --help", "Print this help.")
	for _, section := range t.Sections {
		title := section.Name
		if title == "" {
			title = "general"
		}
		for _, s := range t.in(section.Name) {
			if s.Flag == "" || s.Hidden {
				continue
			}
			if title != "" {
				fmt.Fprintf(&b, "\nFlags for %s:\n", title)
				title = ""
			}
			s.flagHelp(&b)
		}
	}
	b.WriteString("\n" + wrap("", fmt.Sprintf("Flags may be written with one dash or two. They win over the environment, which wins over the file. More settings are in the file: %s config default", t.Program)))
	_, err := io.WriteString(w, b.String())
	return err
}

// Argument stands for the value in the help of the flag: FILE, debug|info. "": the
// flag needs none.
func (s *Setting) Argument() string {
	switch {
	case s.Unit != "":
		return s.Unit
	case s.Kind == Enum:
		return strings.Join(s.Values, "|")
	case s.Kind == Bool:
		return ""
	}
	return strings.ToUpper(s.Kind.Noun())
}

func (s *Setting) flagHelp(b *strings.Builder) {
	head := strings.TrimSpace("--" + s.Flag + " " + s.Argument())
	var notes []string
	if s.Default != "" {
		notes = append(notes, "default "+s.Default)
	}
	if names := s.envNames(); names != "" {
		notes = append(notes, "environment "+names)
	}
	text := s.Help
	if s.Deprecated != "" {
		text = "Deprecated: " + s.Deprecated + ". " + text
	}
	if len(notes) > 0 {
		text = strings.TrimSuffix(text, ".") + " (" + strings.Join(notes, "; ") + ")."
	}
	flagHelp(b, head, text)
	for _, sw := range s.Switches {
		flagHelp(b, "--"+sw.Flag, fmt.Sprintf("The same as --%s %s.", s.Flag, sw.Value))
	}
}

func flagHelp(b *strings.Builder, head, text string) {
	b.WriteString("  " + head + "\n" + wrap("        ", text))
}
