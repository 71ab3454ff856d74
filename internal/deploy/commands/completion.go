package commands

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

var completionCommand = &command{
	name: "completion", args: "bash", short: "print a script that completes command lines in bash",
	long: "For this shell: source <(nnf-deploy completion bash)",
	most: 1, run: runCompletion,
}

//go:embed completion.bash
var completionScript string

func runCompletion(_ context.Context, v *call) error {
	switch {
	case len(v.args) == 0:
		return usagef("completion needs the name of the shell: bash")
	case v.args[0] != "bash":
		return usagef("completion is there for bash, not %.80q", v.args[0])
	}
	_, err := io.WriteString(v.Stdout, Completion())
	return err
}

// Completion is the script that bash reads: the table of verbs and flags filled
// into its pattern.
func Completion() string {
	var names []string
	var cases, words strings.Builder
	for _, c := range commands {
		names = append(names, c.name)
		if f := flagNames(c.ownFlags()); f != "" {
			fmt.Fprintf(&cases, "    %s) flags+=' %s' ;;\n", c.name, f)
		}
	}
	var files, folders, others []string
	for _, f := range withValues() {
		switch kind, list := kindOfValue(f.Flag); kind {
		case valueWords:
			fmt.Fprintf(&words, "    %s)\n      mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n      return\n      ;;\n", f.pattern, strings.Join(list, " "))
		case valueFile:
			files = append(files, f.pattern)
		case valueFolder:
			folders = append(folders, f.pattern)
		default:
			others = append(others, f.pattern)
		}
	}
	for _, k := range []struct {
		flags []string
		then  string
	}{{files, `mapfile -t COMPREPLY < <(compgen -f -- "$cur")`}, {folders, `mapfile -t COMPREPLY < <(compgen -d -- "$cur")`}, {others, ""}} {
		if len(k.flags) > 0 {
			fmt.Fprintf(&words, "    %s)\n      %s\n      return\n      ;;\n", strings.Join(k.flags, " | "), k.then)
		}
	}
	var all []string
	for _, f := range withValues() {
		all = append(all, f.pattern)
	}
	s := defaults(nil)
	script := strings.NewReplacer(
		"@COMMANDS@", strings.Join(names, " "),
		"@FLAGS@", flagNames(s.flagSet(""))+" --help",
		"    @CASES@\n", cases.String(),
		"    @WORDS@\n", words.String(),
		"@VALUES@", strings.Join(all, " | "),
	).Replace(completionScript)
	return strings.ReplaceAll(script, "      \n", "")
}

func flagNames(f *pflag.FlagSet) string {
	var names []string
	f.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return strings.Join(names, " ")
}

// valued is a flag that takes the next word.
type valued struct {
	*pflag.Flag
	pattern string // for case
}

// withValues are those of any verb. A name has the same meaning everywhere.
func withValues() (out []valued) {
	visit := func(f *pflag.Flag) {
		if f.NoOptDefVal != "" || slices.ContainsFunc(out, func(o valued) bool { return o.Name == f.Name }) {
			return
		}
		v := valued{f, "--" + f.Name}
		if f.Shorthand != "" {
			v.pattern += " | -" + f.Shorthand
		}
		out = append(out, v)
	}
	s := defaults(nil)
	s.flagSet("").VisitAll(visit)
	for _, c := range commands {
		c.ownFlags().VisitAll(visit)
	}
	return out
}
