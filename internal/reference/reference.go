// Package reference is what a program with sub-commands goes by, in a form from
// which its manual page and documentation are made: synopses, flags, environment
// and exit codes.
//
// It must not know what the program does.
package reference

import (
	"strings"

	"github.com/spf13/pflag"
)

// Guide is all of it.
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

// Flags describes a set. Defaults that say nothing are left out.
func Flags(flags *pflag.FlagSet) (list []Flag) {
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
