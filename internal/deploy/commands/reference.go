package commands

import (
	"strings"

	"github.com/spf13/pflag"
)

// Guide is what the program goes by, for its documentation: synopses, flags,
// environment and exit codes.
type Guide struct {
	Commands    []Command
	Flags       []Flag // of every command
	Environment []Variable
	Exits       []Exit
}

// Command is one sub-command.
type Command struct {
	Name, Arguments string
	Synopsis        string // the whole line
	Short, Long     string
	Flags           []Flag // its own
}

// Flag is one flag.
type Flag struct{ Name, Letter, Value, Meaning, Default string }

// Variable is a name in the environment.
type Variable struct{ Name, Meaning string }

// Exit is an exit code.
type Exit struct {
	Code    int
	Meaning string
}

// Reference returns it.
func Reference() Guide {
	var g Guide
	for _, c := range commands {
		g.Commands = append(g.Commands, Command{c.name, c.args, c.synopsis(), c.short, c.long, described(c.ownFlags())})
	}
	s := defaults(nil)
	all := s.flagSet("")
	all.BoolP("help", "h", false, "show the help of the command")
	g.Flags = described(all)
	for _, e := range environment {
		g.Environment = append(g.Environment, Variable{e.name, e.meaning})
	}
	for _, e := range exits {
		g.Exits = append(g.Exits, Exit{e.code, e.meaning})
	}
	return g
}

func described(flags *pflag.FlagSet) (list []Flag) {
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
