package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

func (p *Program[C]) helpCommand() *Command[C] {
	return &Command[C]{
		Name: "help", Args: "[COMMAND]", Short: "show this help, or the help of a command", Most: 1,
		Run: func(_ context.Context, v C) error {
			c := v.base()
			if len(c.Args) == 1 && p.find(c.Args[0]) == nil {
				return p.unknown(c.Args[0])
			}
			return p.help(c.Stdout, strings.Join(c.Args, ""))
		},
	}
}

// help prints the help of a command, or of the program.
func (p *Program[C]) help(w io.Writer, name string) error {
	text := p.overview()
	if c := p.find(name); c != nil {
		text = p.details(c)
	}
	_, err := io.WriteString(w, text)
	return err
}

func (p *Program[C]) overview() string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s COMMAND [FLAGS] [ARGUMENTS]\n\n%s\n\nCommands:\n", p.Name, p.About)
	width := 18
	for _, c := range p.commands() {
		width = max(width, len(c.Name+" "+c.Args)+1)
	}
	for _, c := range p.commands() {
		fmt.Fprintf(&b, "  %-*s %s\n", width, strings.TrimSpace(c.Name+" "+c.Args), c.Short)
	}
	b.WriteString("\nFlags of all commands; COMMAND --help shows the others:\n")
	flags := p.commonFlags()
	flags.Bool("version", false, "show the version and exit")
	b.WriteString(flags.FlagUsages() + "\nEnvironment:\n")
	for _, e := range p.Environment {
		fmt.Fprintf(&b, "  %-22s %s\n", e.Name, e.Meaning)
	}
	b.WriteString("\nExit codes:\n")
	for _, e := range p.Exits {
		fmt.Fprintf(&b, "  %3d  %s\n", e.Code, e.Meaning)
	}
	return b.String()
}

func (p *Program[C]) details(c *Command[C]) string {
	text := "Usage: " + p.synopsis(c) + "\n\n" + strings.ToUpper(c.Short[:1]) + c.Short[1:] + ".\n"
	if c.Long != "" {
		text += "\n" + c.Long + "\n"
	}
	if own := p.ownFlags(c).FlagUsages(); own != "" {
		text += "\nFlags:\n" + own
	}
	for _, e := range c.Examples {
		text += "\n" + e.Comment + "\n\n    " + strings.ReplaceAll(e.Lines, "\n", "\n    ") + "\n"
	}
	return text + "\n" + p.Name + " help lists the flags of all commands, the environment and the exit codes.\n"
}

// Guide is the table of a program, for its manual page and its reference in docs.
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
	Flags           []Flag // its own
	Examples        []Example
}

// Example is one command line or several.
type Example struct{ Comment, Lines string }

// Flag is one flag.
type Flag struct{ Name, Letter, Value, Meaning, Default string }

// Variable is a name in the environment.
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

// describe lists a set of flags. Zero values as defaults are left out.
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

// Manual returns the guide in Markdown, as a part of a page in docs.
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
