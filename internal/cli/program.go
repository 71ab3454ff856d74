// Package cli runs programs with sub-commands. One table per program describes its
// commands, flags, environment and exit codes. Parsing, help, suggestions, completion
// for bash, zsh and fish, the manual page and the reference in docs use this table.
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
// The size alone is not decisive. But cobra would replace only the parsing loop and the
// completion scripts, about 250 lines. Error and hint lines with suggestions for flags,
// exit codes, the help with its sections for environment and exit codes, and manual
// pages with the same sections would remain code of this module: their format is the
// same for all four programs, and cobra formats them differently. Completion works as
// in cobra: the shell runs the program.
//
// The package must not know what a program does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
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
	New         func(*Call) C           // returns a call with the defaults of its flags, including those from the environment
	Flags       func(*pflag.FlagSet, C) // defines the flags of every command, which are also accepted before its name
	Check       func(C) error           // checks these flags; may be nil
	Commands    []*Command[C]           // completion and help are appended
	Environment []Variable
	Exits       []Exit
	ExitOf      func(error) int // nil: the function ExitOf
	// Part is whether the commands are part of a daemon. Its help has neither their common flags nor
	// their exit codes, so that of each command has both.
	Part bool
}

// Caller is a *Call, or a type that embeds one.
type Caller interface{ base() *Call }

// Command is one sub-command. Its name has one word, or two if the first is that of a group of
// commands: "identities apply". No command has the name of a group.
type Command[C Caller] struct {
	Name     string
	Args     string // the arguments in the synopsis
	Short    string // a line without a full stop
	Long     string
	Examples []Example
	Least    int      // minimum number of arguments
	Most     int      // maximum number of arguments; -1: no limit
	Formats  []string // values of --output that only this command accepts; Long explains them
	Complete string   // completes the arguments: Files, or a command line of this program that prints them; "": no completion
	Flags    func(*pflag.FlagSet, C)
	Run      func(context.Context, C) error
}

// Run executes a command line and returns the exit code.
func (p *Program[C]) Run(ctx context.Context, process Process, args []string) int {
	if len(args) > 1 && args[0] == CompleteCommand {
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
		if p.find(name) != nil || p.group(name) != nil {
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
	command, words := p.match(root.Args())
	if command == nil {
		return p.unknown(root.Args())
	}
	name := command.Name
	flags := newFlagSet(name)
	p.Flags(flags, v) // with the current values as defaults
	if command.Flags != nil {
		command.Flags(flags, v)
	}
	if err := flags.Parse(root.Args()[words:]); err != nil {
		return name, usage.FlagError(flags, err)
	}
	c.Args = flags.Args()
	c.formats = command.Formats
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

// unknown returns the error for words that are not the name of a command, and the name of the group
// that the error is about.
func (p *Program[C]) unknown(words []string) (group string, err error) {
	if all := p.group(words[0]); all != nil {
		switch {
		case len(words) == 1:
			return words[0], usage.Errorf("%s needs a command: %s", words[0], strings.Join(all, ", "))
		case words[1] == "--help" || words[1] == "-h":
			return words[0], pflag.ErrHelp
		case strings.HasPrefix(words[1], "-"):
			return words[0], usage.Errorf("the command must follow %s, before its flags: %s", words[0], strings.Join(all, ", "))
		}
		return words[0], usage.Unknown(words[0]+" command", words[1], all)
	}
	return "", usage.Unknown("command", words[0], p.firstWords())
}

// match returns the command that the words start with, and the number of words in its name.
func (p *Program[C]) match(words []string) (*Command[C], int) {
	for n := min(len(words), 2); n > 0; n-- {
		if c := p.find(strings.Join(words[:n], " ")); c != nil {
			return c, n
		}
	}
	return nil, 0
}

// group returns the second words of the commands whose first word this is.
func (p *Program[C]) group(name string) (list []string) {
	for _, c := range p.commands() {
		if first, second, ok := strings.Cut(c.Name, " "); ok && first == name {
			list = append(list, second)
		}
	}
	return list
}

// firstWords returns the first words of all names, each once.
func (p *Program[C]) firstWords() (list []string) {
	for _, c := range p.commands() {
		if first, _, _ := strings.Cut(c.Name, " "); !slices.Contains(list, first) {
			list = append(list, first)
		}
	}
	return list
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

// otherSpellings are flag names that every program accepts but the help does not list.
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

// defaults returns a call that provides the definitions of the flags and is never run.
func (p *Program[C]) defaults() C { return p.New(&Call{Program: p.Name}) }

func (p *Program[C]) commonFlags() *pflag.FlagSet {
	f := newFlagSet("")
	p.Flags(f, p.defaults())
	return brief(f)
}

func (p *Program[C]) ownFlags(c *Command[C]) *pflag.FlagSet {
	f := newFlagSet(c.Name)
	if c.Flags != nil {
		c.Flags(f, p.defaults())
	}
	return brief(f)
}

// brief removes zero minutes and seconds from the defaults that help shows: 24h, not 24h0m0s.
func brief(flags *pflag.FlagSet) *pflag.FlagSet {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Value.Type() == "duration" {
			f.DefValue = Duration(f.DefValue)
		}
	})
	return flags
}

// Duration removes zero minutes and seconds from the text of a duration.
func Duration(s string) string { return zeroUnits.ReplaceAllString(s, "$1") }

var zeroUnits = regexp.MustCompile(`([hm])(?:0m)?0s$`)

func (p *Program[C]) synopsis(c *Command[C]) string {
	return strings.TrimSpace(p.Name + " " + c.Name + " [FLAGS] " + c.Args)
}
