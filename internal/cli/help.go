package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
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

// help is that of a command, or of the program.
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
