package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text"
)

func (p *Program[C]) helpCommand() *Command[C] {
	most := 1
	if slices.ContainsFunc(p.Commands, func(c *Command[C]) bool { return strings.Contains(c.Name, " ") }) {
		most = 2
	}
	return &Command[C]{
		Name: "help", Args: "[COMMAND]", Short: "show this help, or the help of a command", Most: most,
		Run: func(_ context.Context, v C) error {
			c := v.base()
			name := strings.Join(c.Args, " ")
			if name != "" && p.find(name) == nil && p.group(name) == nil {
				_, err := p.unknown(c.Args)
				return err
			}
			return p.help(c.Stdout, name)
		},
	}
}

// help prints the help of a command, of a group of commands, or of the program.
func (p *Program[C]) help(w io.Writer, name string) error {
	help := p.overview()
	if c := p.find(name); c != nil {
		help = p.details(c)
	} else if p.group(name) != nil {
		help = "Usage: " + p.Name + " " + name + " COMMAND [FLAGS] [ARGUMENTS]\n\nCommands; COMMAND --help shows the flags:\n" + p.rows(name+" ")
	}
	_, err := io.WriteString(w, help)
	return err
}

func (p *Program[C]) overview() string {
	var b strings.Builder
	b.WriteString("Usage: " + p.Name + " COMMAND [FLAGS] [ARGUMENTS]\n\n" + text.Wrap(text.Columns, "", "", p.About) + "\nCommands:\n")
	b.WriteString(p.rows(""))
	b.WriteString("\nFlags of all commands; COMMAND --help shows the others:\n")
	flags := p.commonFlags()
	flags.Bool("version", false, "show the version and exit")
	b.WriteString(flags.FlagUsagesWrapped(text.Columns) + "\nEnvironment:\n")
	for _, e := range p.Environment {
		b.WriteString(row(e.Name, 22, e.Meaning))
	}
	b.WriteString("\nExit codes:\n" + p.exits())
	return b.String()
}

// rows lists the commands whose names have this prefix.
func (p *Program[C]) rows(prefix string) string {
	var b strings.Builder
	width := 18
	for _, c := range p.commands() {
		width = max(width, len(c.Name+" "+c.Args)+1)
	}
	for _, c := range p.commands() {
		if strings.HasPrefix(c.Name, prefix) {
			b.WriteString(row(strings.TrimSpace(c.Name+" "+c.Args), width, c.Short))
		}
	}
	return b.String()
}

func (p *Program[C]) exits() string {
	var b strings.Builder
	for _, e := range p.Exits {
		b.WriteString(row(fmt.Sprintf("%3d", e.Code), 4, e.Meaning))
	}
	return b.String()
}

func (p *Program[C]) details(c *Command[C]) string {
	help := "Usage: " + p.synopsis(c) + "\n\n" + text.Wrap(text.Columns, "", "", strings.ToUpper(c.Short[:1])+c.Short[1:]+".")
	for paragraph := range strings.SplitSeq(c.Long, "\n\n") {
		if paragraph != "" {
			help += "\n" + text.Wrap(text.Columns, "", "", paragraph)
		}
	}
	flags := p.ownFlags(c)
	if p.Part {
		flags.AddFlagSet(p.commonFlags())
	}
	if all := flags.FlagUsagesWrapped(text.Columns); all != "" {
		help += "\nFlags:\n" + all
	}
	for _, e := range c.Examples {
		help += "\n" + e.Comment + "\n\n    " + strings.ReplaceAll(e.Lines, "\n", "\n    ") + "\n"
	}
	if p.Part {
		return help + "\nExit codes:\n" + p.exits()
	}
	return help + "\n" + text.Wrap(text.Columns, "", "", p.Name+" help lists the flags of all commands, the environment and the exit codes.")
}

// row returns a name and its meaning in columns, the first with this width.
func row(name string, width int, meaning string) string {
	return text.Wrap(text.Columns, fmt.Sprintf("  %-*s ", width, name), strings.Repeat(" ", width+3), meaning)
}

// Guide describes a program for its manual page and its reference in docs.
type Guide struct {
	Commands    []Entry
	Flags       []Flag // of every command
	Environment []Variable
	Exits       []Exit
}

// Entry is one sub-command.
type Entry struct {
	Name, Arguments string
	Synopsis        string // complete command line
	Short, Long     string
	Flags           []Flag // of this command only
	Examples        []Example
}

// Example has one or more command lines.
type Example struct{ Comment, Lines string }

// Flag is one flag.
type Flag struct{ Name, Letter, Value, Meaning, Default string }

// Variable is an environment variable.
type Variable struct{ Name, Meaning string }

// Exit is an exit code.
type Exit struct {
	Code    int
	Meaning string
}

// Guide returns the description of the program.
func (p *Program[C]) Guide() Guide {
	g := Guide{Environment: p.Environment, Exits: p.Exits}
	for _, c := range p.commands() {
		g.Commands = append(g.Commands, Entry{c.Name, c.Args, p.synopsis(c), c.Short, c.Long, describe(p.ownFlags(c)), c.Examples})
	}
	all := p.commonFlags()
	all.BoolP("help", "h", false, "show the help of the command")
	g.Flags = describe(all)
	return g
}

// describe lists a set of flags. It omits defaults that are zero values.
func describe(flags *pflag.FlagSet) (list []Flag) {
	flags.VisitAll(func(f *pflag.Flag) {
		value, meaning := pflag.UnquoteUsage(f)
		fallback := f.DefValue
		if fallback == "false" || fallback == "0s" || fallback == "[]" || fallback == "0" {
			fallback = ""
		}
		list = append(list, Flag{f.Name, f.Shorthand, value, strings.TrimSpace(meaning), fallback})
	})
	return list
}
