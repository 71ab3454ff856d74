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
	long:  "For this shell: source <(nnf-dmctl completion bash)",
	least: 1, most: 1, local: true, run: runCompletion,
}

//go:embed completion.bash
var completionScript string

func runCompletion(_ context.Context, v *call) error {
	if v.args[0] != "bash" {
		return usagef("completion is there for bash, not %.80q", v.args[0])
	}
	_, err := io.WriteString(v.Stdout, Completion())
	return err
}

// Completion is the script that bash reads: commands and their flags filled into
// its pattern.
func Completion() string {
	var names, cases strings.Builder
	for _, c := range commands {
		names.WriteString(" " + c.name)
		if f := flagNames(c.ownFlags()); f != "" {
			fmt.Fprintf(&cases, "    %s) flags+='%s' ;;\n", c.name, f)
		}
	}
	s := defaults(nil)
	return strings.NewReplacer(
		"@COMMANDS@", strings.TrimSpace(names.String()),
		"@FLAGS@", strings.TrimSpace(flagNames(s.flagSet(""))+" --help"),
		"    @CASES@\n", cases.String(),
		"@IDS@", strings.Join(withIDs(), "|"),
		"@VALUES@", strings.Join(withValues(), "|"),
		"@OTHERS@", strings.Join(slices.DeleteFunc(withValues(), hasOwnWords), "|"),
	).Replace(completionScript)
}

// hasOwnWords tells which flags the script completes the value of.
func hasOwnWords(flag string) bool {
	return slices.Contains([]string{"--output", "-o", "--socket", "--batch"}, flag)
}

func flagNames(f *pflag.FlagSet) string {
	var b strings.Builder
	f.VisitAll(func(f *pflag.Flag) { b.WriteString(" --" + f.Name) })
	return b.String()
}

func withIDs() (out []string) {
	for _, c := range commands {
		if c.ids {
			out = append(out, c.name)
		}
	}
	return out
}

// withValues are the flags that take the next word, of any command.
func withValues() (out []string) {
	seen := make(map[string]bool)
	visit := func(f *pflag.Flag) {
		if f.NoOptDefVal == "" && !seen[f.Name] {
			seen[f.Name] = true
			out = append(out, "--"+f.Name)
			if f.Shorthand != "" {
				out = append(out, "-"+f.Shorthand)
			}
		}
	}
	s := defaults(nil)
	s.flagSet("").VisitAll(visit)
	for _, c := range commands {
		c.ownFlags().VisitAll(visit)
	}
	return out
}
