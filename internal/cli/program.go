// Package cli runs programs with sub-commands. One table per program describes its
// commands, flags, environment and exit codes. Parsing, help, suggestions, completion
// for bash, zsh and fish, the manual page and the reference in docs are made from it.
//
// # Why not cobra
//
// The alternative was github.com/spf13/cobra 1.10, with the same tables, linker flags
// and flag package (pflag, which this package uses as well). Measured for linux/amd64:
//
//	                         this package   cobra
//	nnf-dmctl                8,741,026 B    8,933,538 B (+ 192,512)
//	nnf-deploy               11,931,810 B   12,120,226 B (+ 188,416)
//	further modules linked   none           cobra; text/template of the standard library
//	modules for man pages    none           cobra/doc, go-md2man, go.yaml.in/yaml/v3
//	completion               bash zsh fish  bash zsh fish powershell
//	bash completion needs    bash           bash and the package bash-completion
//	suggestions              words, flags   words
//
// The size alone would not decide. But cobra would replace only the parsing loop and the
// completion scripts here, about 250 lines. Error and hint lines with suggestions for
// flags, exit codes, the help with its sections for environment and exit codes, and
// manual pages with the same sections would remain code of this module: they are set
// for all four programs, and cobra formats them differently. Completion works like
// cobra's: the shell asks the program.
//
// The package must not know what a program does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Program is the table of a program. C is the program's own type for a call, with the
// fields that its flags set: a pointer to a struct that embeds a *Call.
type Program[C Caller] struct {
	Name        string
	About       string                  // a sentence for the help
	New         func(*Call) C           // a call with the defaults of its flags, also from the environment
	Flags       func(*pflag.FlagSet, C) // those of every command; they may also stand before its name
	Check       func(C) error           // checks those flags; may be nil
	Commands    []*Command[C]           // completion and help are added behind them
	Environment []Variable
	Exits       []Exit
	ExitOf      func(error) int // nil: the function ExitOf
}

// Caller is a *Call, or a type that embeds one.
type Caller interface{ base() *Call }

// Command is one sub-command.
type Command[C Caller] struct {
	Name     string
	Args     string // in the synopsis
	Short    string // a line without a full stop
	Long     string
	Examples []Example
	Least    int    // number of arguments
	Most     int    // -1: any number
	Complete string // completes the arguments: Files, or the command line of this program that prints them; "": nothing
	Flags    func(*pflag.FlagSet, C)
	Run      func(context.Context, C) error
}

// Run executes a command line and returns the exit code.
func (p *Program[C]) Run(ctx context.Context, process Process, args []string) int {
	if len(args) > 1 && args[0] == completeCommand {
		return p.printCompletion(ctx, process, args[1], args[2:])
	}
	v := p.New(&Call{Process: process, Program: p.Name})
	c := v.base()
	name, err := p.run(ctx, v, args)
	switch u := (*usage.Error)(nil); {
	case err == nil:
		return c.Code
	case errors.Is(err, pflag.ErrHelp):
		if p.help(c.Stdout, name) != nil {
			return ExitFailed
		}
		return ExitOK
	case errors.As(err, &u):
		see := p.Name + " --help"
		if p.find(name) != nil {
			see = p.Name + " " + name + " --help"
		}
		c.Explain(hint.Add(err, "see %s", see))
		return ExitUsage
	}
	c.Explain(err)
	if p.ExitOf != nil {
		return p.ExitOf(err)
	}
	return ExitOf(err)
}

// run parses the command line, runs the command, and returns its name with the
// error.
func (p *Program[C]) run(ctx context.Context, v C, args []string) (string, error) {
	root := newFlagSet("")
	p.Flags(root, v)
	root.SetInterspersed(false)
	showVersion := root.Bool("version", false, "")
	if err := root.Parse(args); err != nil {
		return "", usage.FlagError(root, err)
	}
	c := v.base()
	if *showVersion {
		_, err := fmt.Fprintln(c.Stdout, version.Line(p.Name))
		return "", err
	}
	if root.NArg() == 0 {
		return "", usage.Errorf("a command is missing")
	}
	name := root.Arg(0)
	command := p.find(name)
	if command == nil {
		return "", p.unknown(name)
	}
	flags := newFlagSet(name)
	p.Flags(flags, v) // with the values so far as defaults
	if command.Flags != nil {
		command.Flags(flags, v)
	}
	if err := flags.Parse(root.Args()[1:]); err != nil {
		return name, usage.FlagError(flags, err)
	}
	c.Args = flags.Args()
	c.given = func(flag string) bool { return flags.Changed(flag) || root.Changed(flag) }
	switch {
	case len(c.Args) < command.Least:
		return name, usage.Errorf("%s needs %s", name, command.Args)
	case command.Most >= 0 && len(c.Args) > command.Most:
		return name, usage.Errorf("unexpected argument %.80q", c.Args[command.Most])
	}
	if p.Check != nil {
		if err := p.Check(v); err != nil {
			return name, err
		}
	}
	return name, command.Run(ctx, v)
}

// unknown returns the error for a command that does not exist.
func (p *Program[C]) unknown(name string) error {
	var known []string
	for _, c := range p.commands() {
		known = append(known, c.Name)
	}
	return usage.Unknown("command", name, known)
}

// commands returns all commands in the order of the help.
func (p *Program[C]) commands() []*Command[C] {
	return append(slices.Clone(p.Commands), p.completionCommand(), p.helpCommand())
}

func (p *Program[C]) find(name string) *Command[C] {
	for _, c := range p.commands() {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// otherSpellings of flags are accepted by every program. No help shows them.
var otherSpellings = map[string]string{"dryrun": "dry-run"}

func newFlagSet(name string) *pflag.FlagSet {
	f := pflag.NewFlagSet(name, pflag.ContinueOnError)
	f.SortFlags = false
	f.Usage = func() {}
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if usual, ok := otherSpellings[name]; ok {
			name = usual
		}
		return pflag.NormalizedName(name)
	})
	return f
}

// defaults returns a call that is never run, for the definitions of its flags.
func (p *Program[C]) defaults() C { return p.New(&Call{Program: p.Name}) }

func (p *Program[C]) commonFlags() *pflag.FlagSet {
	f := newFlagSet("")
	p.Flags(f, p.defaults())
	return f
}

func (p *Program[C]) ownFlags(c *Command[C]) *pflag.FlagSet {
	f := newFlagSet(c.Name)
	if c.Flags != nil {
		c.Flags(f, p.defaults())
	}
	return f
}

func (p *Program[C]) synopsis(c *Command[C]) string {
	return strings.TrimSpace(p.Name + " " + c.Name + " [FLAGS] " + c.Args)
}
