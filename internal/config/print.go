package config

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Check loads the settings without filling the fields, and writes the warnings and the
// files that were read to w. The error is that of Load.
func Check(w io.Writer, t *Table, src Sources) error {
	result, rest, err := load(t, src)
	if err != nil {
		return err
	}
	if len(rest) > 0 {
		return usage.Errorf("unexpected argument %s", text.Quote(rest[0]))
	}
	for _, warning := range result.Warnings {
		fmt.Fprintln(w, "warning:", warning)
	}
	for _, file := range result.Files {
		fmt.Fprintln(w, clean(file)+": ok")
	}
	if len(result.Files) == 0 {
		fmt.Fprintln(w, "no configuration file found; all values come from defaults, the environment or flags")
	}
	return nil
}

// Dump writes the values in effect as TOML, each with its origin in a comment.
func Dump(w io.Writer, t *Table, r Result) error {
	keys, values := 0, 0
	for _, v := range r.Values {
		keys = max(keys, len(v.Setting.name()))
		// Long values do not move the comments of other lines.
		if n := utf8.RuneCountInString(v.Literal()); n <= 40 {
			values = max(values, n)
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-*s = %-*d  # format version\n", keys, "version", values, formatVersion)
	for _, section := range t.Sections {
		settings := t.in(section.Name)
		if section.Name != "" && len(settings) > 0 {
			fmt.Fprintf(&b, "\n[%s]\n", section.Name)
		}
		for _, s := range settings {
			v, ok := r.Lookup(s.Key)
			if !ok {
				return errors.New("no value for " + s.Key)
			}
			fmt.Fprintf(&b, "%-*s = %-*s  # %s\n", keys, s.name(), values, v.Literal(), v.Origin)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// DefaultFile returns the configuration file that packages install: every setting,
// commented out, with its help, other names and default. Uncommented lines set the
// default.
func DefaultFile(t *Table) string {
	var b strings.Builder
	b.WriteString(wrap("# ", fmt.Sprintf("Configuration of %s. Settings that are commented out show the default.", t.Program)))
	b.WriteString(wrap("# ", fmt.Sprintf("Files in config.d next to this one (*.toml, in lexical order) override it, the environment overrides them, and flags override everything. An unknown key is an error. Check with: %s config check", t.Program)))
	b.WriteString("\n# Version of this format.\n")
	fmt.Fprintf(&b, "version = %d\n", formatVersion)
	for _, section := range t.Sections {
		if section.Name != "" {
			b.WriteString("\n" + wrap("# ", section.Help))
			fmt.Fprintf(&b, "[%s]\n", section.Name)
		}
		for _, s := range t.in(section.Name) {
			b.WriteString("\n" + wrap("# ", s.Help) + wrap("# ", s.facts()))
			v, err := s.parse(s.Default)
			if err != nil {
				panic("config: default of " + s.complain(err)) // a bug in the table, which its test finds
			}
			fmt.Fprintf(&b, "#%s = %s\n", s.name(), s.literal(v))
		}
	}
	return b.String()
}

// facts returns the properties of a setting besides its help, as sentences.
func (s *Setting) facts() string {
	var facts []string
	if accepted := s.Accepted(); accepted != "" {
		facts = append(facts, "Accepted: "+accepted+".")
	}
	if s.Flag != "" {
		facts = append(facts, "Flag: --"+s.Flag+".")
	}
	if names := s.envNames(); names != "" {
		facts = append(facts, "Environment: "+names+".")
	}
	if s.Reload {
		facts = append(facts, "Takes effect on reload.")
	}
	return strings.Join(facts, " ")
}

// Accepted describes the valid values of the setting; "": all values of the kind.
func (s *Setting) Accepted() string {
	if len(s.Values) > 0 {
		return strings.Join(s.Values, ", ")
	}
	accepted := s.rangeText()
	for _, w := range sortedKeys(s.Words) {
		if accepted != "" {
			accepted += " or "
		}
		accepted += `"` + w + `"`
	}
	return accepted
}

func (s *Setting) envNames() string {
	names := make([]string, len(s.Env))
	for i, env := range s.Env {
		names[i] = env.Name
	}
	return strings.Join(names, ", ")
}

// wrap breaks a text into lines, each with the prefix.
func wrap(prefix, s string) string { return text.Wrap(text.Columns, prefix, prefix, s) }
