package cli

import (
	"context"
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Files says that arguments are names of files.
const Files = "\x00files"

// words is the annotation of a flag that takes one of some words.
const words = "words"

// Words says which words a flag takes, for completion. It panics when there is no
// such flag: the table is wrong.
func Words(f *pflag.FlagSet, flag string, list ...string) {
	if err := f.SetAnnotation(flag, words, slices.Clone(list)); err != nil {
		panic(err)
	}
}

func (p *Program[C]) completionCommand() *Command[C] {
	return &Command[C]{
		Name: "completion", Args: "bash", Short: "print a script that completes command lines in bash",
		Long: "For this shell: source <(" + p.Name + " completion bash)",
		Most: 1,
		Run: func(_ context.Context, v C) error {
			c := v.base()
			switch {
			case len(c.Args) == 0:
				return usage.Errorf("completion needs the name of the shell: bash")
			case c.Args[0] != "bash":
				return usage.Errorf("completion exists for bash, not for %.80q", c.Args[0])
			}
			_, err := io.WriteString(c.Stdout, p.Completion())
			return err
		},
	}
}

//go:embed completion.bash
var completionScript string

const fromFiles, fromFolders = `mapfile -t COMPREPLY < <(compgen -f -- "$cur")`, `mapfile -t COMPREPLY < <(compgen -d -- "$cur")`

func fromWords(list string) string {
	return `mapfile -t COMPREPLY < <(compgen -W '` + list + `' -- "$cur")`
}

// Completion is the script that bash reads: the table filled into its pattern.
func (p *Program[C]) Completion() string {
	var names, flags []string
	arguments := []branch{{[]string{"''", "help"}, ""}, {[]string{"completion"}, fromWords("bash")}}
	asks := false
	for _, c := range p.commands() {
		names = append(names, c.Name)
		if f := flagNames(p.ownFlags(c)); f != "" {
			flags = append(flags, fmt.Sprintf("%s) flags+=' %s' ;;", c.Name, f))
		}
		switch {
		case c.Complete == Files:
			arguments = add(arguments, c.Name, fromFiles)
		case c.Complete != "":
			asks = true
			arguments = add(arguments, c.Name, `mapfile -t found < <("${ask[@]}" `+c.Complete+" 2>/dev/null)\n"+`mapfile -t COMPREPLY < <(compgen -W "${found[*]}" -- "$cur")`)
		}
	}
	arguments[0].then = fromWords(strings.Join(names, " "))
	var values []branch
	var all []string
	p.eachValued(func(f *pflag.Flag, pattern string) {
		all = append(all, pattern)
		values = add(values, pattern, valueOf(f))
	})
	locals, pass := "", ""
	if asks {
		locals = "  local -a ask=(" + p.Name + ") found=()\n"
		pass = "    case $skip in\n      " + strings.Join(p.PassOn, " | ") + ") [[ $word == '=' ]] || ask+=(\"$skip\" \"$word\") ;;\n    esac\n"
	}
	return strings.NewReplacer(
		"@NAME@", p.Name,
		"@FUNCTION@", strings.ReplaceAll(p.Name, "-", "_"),
		"@FLAGS@", flagNames(p.commonFlags())+" --help",
		"@VALUES@", strings.Join(all, " | "),
		"  @LOCALS@\n", locals,
		"    @PASS@\n", pass,
		"    @WORDS@\n", branches(values, "return"),
		"    @CASES@\n", "    "+strings.Join(flags, "\n    ")+"\n",
		"    @ARGUMENTS@\n", branches(arguments, ""),
	).Replace(completionScript)
}

// branch is one of a case of bash.
type branch struct {
	patterns []string
	then     string
}

// add lets a pattern do what others do, or begins a branch.
func add(list []branch, pattern, then string) []branch {
	for i := range list {
		if list[i].then == then {
			list[i].patterns = append(list[i].patterns, pattern)
			return list
		}
	}
	return append(list, branch{[]string{pattern}, then})
}

func branches(list []branch, last string) string {
	var b strings.Builder
	for _, one := range list {
		b.WriteString("    " + strings.Join(one.patterns, " | ") + ")\n")
		for _, line := range append(strings.Split(one.then, "\n"), last) {
			if line != "" {
				b.WriteString("      " + line + "\n")
			}
		}
		b.WriteString("      ;;\n")
	}
	return b.String()
}

func flagNames(f *pflag.FlagSet) string {
	var names []string
	f.VisitAll(func(f *pflag.Flag) { names = append(names, "--"+f.Name) })
	return strings.Join(names, " ")
}

// eachValued visits the flags that take the next word, of any command. A name has
// the same meaning everywhere.
func (p *Program[C]) eachValued(visit func(f *pflag.Flag, pattern string)) {
	seen := map[string]bool{}
	one := func(f *pflag.Flag) {
		if f.NoOptDefVal != "" || seen[f.Name] {
			return
		}
		seen[f.Name] = true
		pattern := "--" + f.Name
		if f.Shorthand != "" {
			pattern += " | -" + f.Shorthand
		}
		visit(f, pattern)
	}
	p.commonFlags().VisitAll(one)
	for _, c := range p.commands() {
		p.ownFlags(c).VisitAll(one)
	}
}

// valueOf completes the value of a flag: words, or the names of files or folders,
// if its placeholder says so.
func valueOf(f *pflag.Flag) string {
	if list, ok := f.Annotations[words]; ok {
		return fromWords(strings.Join(list, " "))
	}
	switch name, _ := pflag.UnquoteUsage(f); name {
	case "FILE", "PATH", "PROGRAM":
		return fromFiles
	case "DIR":
		return fromFolders
	}
	return ""
}
