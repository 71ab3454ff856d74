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

// Program is the table. C is the program's own type for a call, with the fields
// that its flags set: a pointer to a structure with a *Call in it.
type Program[C Caller] struct {
	Name        string
	About       string                  // a sentence for the help
	New         func(*Call) C           // a call with the defaults of its flags, also from the environment
	Flags       func(*pflag.FlagSet, C) // those of every command; they may also stand before its name
	Check       func(C) error           // of those flags; nil: nothing can be wrong
	Commands    []*Command[C]           // help and completion come behind them
	PassOn      []string                // flags, as --flag or -f, that completion needs for Command.Complete
	Environment []Variable
	Exits       []Exit
	ExitOf      func(error) int // nil: the function ExitOf
}

// Caller is a *Call, or has one embedded.
type Caller interface{ base() *Call }

// Command is one sub-command.
type Command[C Caller] struct {
	Name     string
	Args     string // for the synopsis
	Short    string // a line without a full stop
	Long     string
	Examples []Example
	Least    int    // arguments
	Most     int    // -1: any number
	Complete string // the arguments: Files, or the command of this program that prints them; "": not at all
	Flags    func(*pflag.FlagSet, C)
	Run      func(context.Context, C) error
}

// UsageError is a wrong command line.
type UsageError = usage.Error

// Usagef makes a *UsageError.
func Usagef(format string, args ...any) error { return usage.Errorf(format, args...) }

// Run does what the arguments say and returns the exit code.
func (p *Program[C]) Run(ctx context.Context, process Process, args []string) int {
	v := p.New(&Call{Process: process, Program: p.Name})
	c := v.base()
	name, err := p.run(ctx, v, args)
	switch u := (*UsageError)(nil); {
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
	p.Flags(flags, v) // the defaults are what is known by now
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
		return name, Usagef("%s needs %s", name, command.Args)
	case command.Most >= 0 && len(c.Args) > command.Most:
		return name, Usagef("unexpected argument %.80q", c.Args[command.Most])
	}
	if p.Check != nil {
		if err := p.Check(v); err != nil {
			return name, err
		}
	}
	return name, command.Run(ctx, v)
}

// unknown is the error for a command that does not exist.
func (p *Program[C]) unknown(name string) error {
	var known []string
	for _, c := range p.commands() {
		known = append(known, c.Name)
	}
	return usage.Unknown("command", name, known)
}

// commands are all, in the order of the help.
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

// otherSpellings of flags are accepted by every program, and shown by none.
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

// nobody is a call that is never made, for what its flags are.
func (p *Program[C]) nobody() C { return p.New(&Call{Program: p.Name}) }

func (p *Program[C]) commonFlags() *pflag.FlagSet {
	f := newFlagSet("")
	p.Flags(f, p.nobody())
	return f
}

func (p *Program[C]) ownFlags(c *Command[C]) *pflag.FlagSet {
	f := newFlagSet(c.Name)
	if c.Flags != nil {
		c.Flags(f, p.nobody())
	}
	return f
}

func (p *Program[C]) synopsis(c *Command[C]) string {
	return strings.TrimSpace(p.Name + " " + c.Name + " [FLAGS] " + c.Args)
}
