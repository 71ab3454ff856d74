package commands

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/pflag"
)

var helpCommand = &command{
	name: "help", args: "[COMMAND]", short: "show this help, or that of a command",
	most: 1, run: runHelp,
}

func runHelp(_ context.Context, v *call) error {
	if len(v.args) == 0 {
		return writeHelp(v.Stdout)
	}
	c := find(v.args[0])
	if c == nil {
		return usagef("unknown command %.80q", v.args[0])
	}
	return c.writeHelp(v.Stdout)
}

// help answers --help.
func (p *Program) help(name string) int {
	err := error(nil)
	if c := find(name); c != nil {
		err = c.writeHelp(p.Stdout)
	} else {
		err = writeHelp(p.Stdout)
	}
	if err != nil {
		return ExitFailed
	}
	return ExitOK
}

func writeHelp(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s COMMAND [FLAGS] [ARGUMENTS]\n\nBrings clientmountd and nnf-dm to every compute of a system, from one host.\n\nCommands:\n", Name)
	for _, c := range commands {
		fmt.Fprintf(&b, "  %-18s %s\n", strings.TrimSpace(c.name+" "+c.args), c.short)
	}
	b.WriteString("\nFlags of all commands; COMMAND --help shows the others:\n")
	s := defaults(nil)
	flags := s.flagSet("")
	flags.Bool("version", false, "tell the version and end")
	b.WriteString(flags.FlagUsages() + "\nEnvironment:\n")
	for _, e := range environment {
		fmt.Fprintf(&b, "  %-22s %s\n", e.name, e.meaning)
	}
	b.WriteString("\nExit codes:\n")
	for _, e := range exits {
		fmt.Fprintf(&b, "  %3d  %s\n", e.code, e.meaning)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (c *command) ownFlags() *pflag.FlagSet {
	f := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	f.SortFlags = false
	if c.flags != nil {
		s := defaults(nil)
		c.flags(f, &s)
	}
	return f
}

func (c *command) synopsis() string {
	return strings.TrimSpace(Name + " " + c.name + " [FLAGS] " + c.args)
}

func (c *command) writeHelp(w io.Writer) error {
	text := "Usage: " + c.synopsis() + "\n\n" + strings.ToUpper(c.short[:1]) + c.short[1:] + ".\n"
	if c.long != "" {
		text += "\n" + c.long + "\n"
	}
	if own := c.ownFlags().FlagUsages(); own != "" {
		text += "\nFlags:\n" + own
	}
	for _, e := range c.examples {
		text += "\n" + e.comment + "\n\n    " + strings.ReplaceAll(e.line, "\n", "\n    ") + "\n"
	}
	text += "\n" + Name + " help has the flags of all commands, the environment and the exit codes.\n"
	_, err := io.WriteString(w, text)
	return err
}
