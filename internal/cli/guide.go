package cli

import (
	"strings"

	"github.com/spf13/pflag"
)

// Guide is what a program goes by, for its manual page and documentation.
type Guide struct {
	Commands    []Entry
	Flags       []Flag // of every command
	Environment []Variable
	Exits       []Exit
}

// Entry is one sub-command in it.
type Entry struct {
	Name, Arguments string
	Synopsis        string // the whole line
	Short, Long     string
	Flags           []Flag // its own
	Examples        []Example
}

// Example is a command line, or several, that people may copy.
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

// Guide describes the program.
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

// describe lists a set of flags. Defaults that say nothing are left out.
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
