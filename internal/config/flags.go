package config

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// ErrHelp is returned by Load if the arguments contain -h or --help. The caller prints
// Usage and exits with 0.
var ErrHelp = pflag.ErrHelp

// configFlag sets the path of the main file. It is not a setting.
const configFlag = "config"

// commandLine is the result of parsing the arguments.
type commandLine struct {
	config   string // value of --config; "": not given
	values   []Value
	warnings []string
	rest     []string // arguments that are not flags
}

// flagValue calls set with each value of a flag.
type flagValue struct {
	set  func(text string) error
	kind string
}

func (f flagValue) Set(text string) error { return f.set(text) }
func (f flagValue) String() string        { return "" }
func (f flagValue) Type() string          { return f.kind }

// parseArgs parses the arguments (without the program name). Its errors are ErrHelp
// or a *usage.Error.
func parseArgs(t *Table, args []string) (*commandLine, error) {
	line := &commandLine{}
	set := t.flagSet(line)
	err := set.Parse(longFlags(set, args))
	line.rest = set.Args()
	if err != nil {
		err = usage.FlagError(set, err)
	}
	return line, err
}

// flagSet returns the flags of the table. Parsing them fills line.
func (t *Table) flagSet(line *commandLine) *pflag.FlagSet {
	set := pflag.NewFlagSet(t.Program, pflag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.Usage = func() {}
	add := func(name, kind string, hidden bool, use func(text string) error) *pflag.Flag {
		f := set.VarPF(flagValue{use, kind}, name, "", "")
		f.Hidden = hidden
		if kind == "boolean" {
			f.NoOptDefVal = "true"
		}
		return f
	}
	add(configFlag, "string", false, func(text string) error {
		if text == "" {
			return errors.New("a file name is required")
		}
		line.config = text
		return nil
	})
	for i := range t.Settings {
		s := &t.Settings[i]
		if s.Flag != "" {
			add(s.Flag, s.Kind.Noun(), false, func(text string) error { return line.take(s, s.Flag, text) })
		}
		for _, sw := range s.Switches {
			add(sw.Flag, "boolean", false, func(text string) error {
				if text != "true" {
					return nil // --mock=false changes nothing
				}
				return line.take(s, sw.Flag, sw.Value)
			})
		}
	}
	for _, old := range t.Legacy {
		kind := "string"
		if old.Bool {
			kind = "boolean"
		}
		add(old.Flag, kind, true, func(string) error {
			text := fmt.Sprintf("flag --%s no longer has any effect: %s", old.Flag, old.Advice)
			if !slices.Contains(line.warnings, text) {
				line.warnings = append(line.warnings, text)
			}
			return nil
		})
	}
	return set
}

func (line *commandLine) take(s *Setting, flag, text string) error {
	v, err := s.parse(text)
	if err != nil {
		return errors.New(s.complain(err))
	}
	line.values = append(line.values, Value{s, v, Origin{Flag, flag, 0}})
	return nil
}

// longFlags converts flags with a single dash, as in Go's package flag, to double
// dashes, so that unit files for earlier daemons keep working. -h stays as it is. The
// argument after a flag with a value is the value, even if it starts with a dash.
func longFlags(set *pflag.FlagSet, args []string) []string {
	out := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(out, args[i:]...)
		}
		if len(arg) > 2 && arg[0] == '-' && arg[1] != '-' {
			arg = "-" + arg
		}
		out = append(out, arg)
		name, isFlag := strings.CutPrefix(arg, "--")
		if f := set.Lookup(name); isFlag && f != nil && f.NoOptDefVal == "" && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return out
}

// Usage writes the help of the command line: the flags by section, in at most 80
// columns, each with its default and its environment variables.
func Usage(w io.Writer, t *Table) error {
	var b strings.Builder
	b.WriteString(wrap("", t.Summary))
	if len(t.Synopsis) > 0 {
		b.WriteString("\nUsage:\n")
		width := 0
		for _, c := range t.Synopsis {
			width = max(width, len(c.Usage(t.Program)))
		}
		for _, c := range t.Synopsis {
			fmt.Fprintf(&b, "  %-*s  %s\n", width, c.Usage(t.Program), c.Meaning)
		}
	}
	b.WriteString("\nFlags:\n")
	flagHelp(&b, "--"+configFlag+" FILE", fmt.Sprintf("Configuration file; the files in config.d next to it are read, too (default %s).", t.File))
	flagHelp(&b, "-h, --help", "Print this help.")
	for _, section := range t.Sections {
		title := section.Name
		if title == "" {
			title = "general"
		}
		for _, s := range t.in(section.Name) {
			if s.Flag == "" {
				continue
			}
			if title != "" {
				fmt.Fprintf(&b, "\nFlags for %s:\n", title)
				title = ""
			}
			s.flagHelp(&b)
		}
	}
	b.WriteString("\n" + wrap("", fmt.Sprintf("Flags may have one dash or two. They override the environment, which overrides the file. For all settings, see: %s config default", t.Program)))
	_, err := io.WriteString(w, b.String())
	return err
}

// Argument returns the placeholder of the value in the help of the flag: FILE,
// debug|info. "": the flag has no value.
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

// CheckArgs checks the arguments. It reads neither files nor the environment. It
// returns the arguments that are not flags; its errors are ErrHelp or a *usage.Error.
func CheckArgs(t *Table, args []string) (rest []string, err error) {
	line, err := parseArgs(t, args)
	return line.rest, err
}
