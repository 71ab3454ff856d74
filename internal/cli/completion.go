package cli

import (
	"bytes"
	"cmp"
	"context"
	_ "embed"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Files as Command.Complete means that the arguments are file names.
const Files = "\x00files"

// wordsKey is the annotation of a flag that takes one of several words.
const wordsKey = "words"

// Words declares the words that a flag accepts, for completion. It panics if the flag
// does not exist, because the table is wrong in that case.
func Words(f *pflag.FlagSet, flag string, list ...string) {
	if err := f.SetAnnotation(flag, wordsKey, slices.Clone(list)); err != nil {
		panic(err)
	}
}

// CheckWord returns a usage error if the value of a flag is not one of the words.
func CheckWord(flag, value string, list []string) error {
	if slices.Contains(list, value) {
		return nil
	}
	return usage.Errorf("--%s must be one of %s, not %.80q", flag, strings.Join(list, ", "), value)
}

// CheckFile returns a usage error if the value of a flag for a file that the command writes looks like
// the next flag: the name was forgotten, and the next flag would have no effect.
func CheckFile(flag, value string) error {
	if strings.HasPrefix(value, "-") {
		return usage.Errorf("--%s needs a file name, not %.80q; for this name, write ./%.80s", flag, value, value)
	}
	return nil
}

// Shells are the shells with a completion script.
var Shells = []string{"bash", "zsh", "fish"}

//go:embed completion.bash
var bashScript string

//go:embed completion.zsh
var zshScript string

//go:embed completion.fish
var fishScript string

// Completion returns the completion script for one of Shells. The script contains no
// words: for each completion it runs the program with CompleteCommand, which uses the
// table of the program.
func (p *Program[C]) Completion(shell string) string {
	pattern := map[string]string{"bash": bashScript, "zsh": zshScript, "fish": fishScript}[shell]
	return strings.NewReplacer("@NAME@", p.Name, "@FUNCTION@", strings.ReplaceAll(p.Name, "-", "_")).Replace(pattern)
}

func (p *Program[C]) completionCommand() *Command[C] {
	return &Command[C]{
		Name: "completion", Args: "SHELL", Short: "print the completion script for bash, zsh or fish",
		Long: "For the running shell: source <(" + p.Name + " completion bash), or with zsh. In fish:\n" +
			p.Name + " completion fish | source",
		Most: 1,
		Run: func(_ context.Context, v C) error {
			c := v.base()
			switch {
			case len(c.Args) == 0:
				return usage.Errorf("completion needs the name of the shell: %s", strings.Join(Shells, ", "))
			case !slices.Contains(Shells, c.Args[0]):
				return usage.Unknown("shell", c.Args[0], Shells)
			}
			_, err := io.WriteString(c.Stdout, p.Completion(c.Args[0]))
			return err
		},
	}
}

// CompleteCommand is the command that the scripts run: __complete SHELL WORD... The
// words are those after the program's name, up to the word at the cursor, which may be
// empty. The first line of the output is its kind: "words", followed by one word per
// line, with a tab and a description for zsh and fish; or "files" or "directories",
// which the shell completes. The help does not list this command.
const CompleteCommand = "__complete"

// candidate is a word that the shell may offer.
type candidate struct{ word, meaning string }

// Kinds of output of CompleteCommand.
const (
	kindWords       = "words"
	kindFiles       = "files"
	kindDirectories = "directories"
)

// printCompletion runs CompleteCommand.
func (p *Program[C]) printCompletion(ctx context.Context, process Process, shell string, words []string) int {
	if shell == "bash" {
		words = joinAssignments(words)
	}
	if len(words) == 0 {
		words = []string{""}
	}
	kind, list := p.complete(ctx, process, words[:len(words)-1], words[len(words)-1])
	var b strings.Builder
	b.WriteString(kind + "\n")
	for _, c := range list {
		b.WriteString(text.Line(c.word))
		if shell != "bash" && c.meaning != "" {
			b.WriteString("\t" + c.meaning)
		}
		b.WriteByte('\n')
	}
	if _, err := io.WriteString(process.Stdout, b.String()); err != nil {
		return ExitFailed
	}
	return ExitOK
}

// joinAssignments joins "--flag", "=" and "value" to one word: bash splits words at "=".
func joinAssignments(words []string) (list []string) {
	for i, w := range words {
		n := len(list)
		if n > 0 && strings.HasPrefix(list[n-1], "--") && (w == "=" || i > 0 && words[i-1] == "=" && strings.HasSuffix(list[n-1], "=")) {
			list[n-1] += w
			continue
		}
		list = append(list, w)
	}
	return list
}

// complete returns the candidates for the word current, which follows the words before.
func (p *Program[C]) complete(ctx context.Context, process Process, before []string, current string) (string, []candidate) {
	var command *Command[C]
	var name, helped string // helped is the first argument of help
	var open *pflag.Flag    // takes the next word as its value
	var common []string     // the flags of every command on this command line
	all, flags := p.commonFlags(), p.commonFlags()
	for _, w := range before {
		isCommon := open != nil && all.Lookup(open.Name) != nil
		switch {
		case open != nil:
			open = nil
		case strings.HasPrefix(w, "-"):
			var f *pflag.Flag
			f, open = flagOf(flags, w)
			isCommon = f != nil && all.Lookup(f.Name) != nil
		case name == "", name == "help" && helped == "", command == nil && p.group(name) != nil:
			if name == "help" {
				helped = w
				continue
			}
			name = strings.TrimSpace(name + " " + w)
			if command = p.find(name); command != nil {
				flags.AddFlagSet(p.ownFlags(command))
				if f := flags.Lookup("output"); f != nil {
					Words(flags, f.Name, slices.Concat(f.Annotations[wordsKey], command.Formats)...)
				}
			}
		}
		if isCommon {
			common = append(common, w)
		}
	}
	flag, value, assigned := strings.Cut(current, "=")
	switch {
	case open != nil:
		return valuesOf(open, current)
	case assigned && strings.HasPrefix(flag, "--"):
		if f, _ := flagOf(flags, flag); f != nil {
			return valuesOf(f, value)
		}
		return kindWords, nil
	case strings.HasPrefix(current, "-"):
		return kindWords, starting(current, append(flagNames(flags), candidate{"--help", "show the help of the command"}))
	case p.group(cmp.Or(helped, name)) != nil:
		return kindWords, starting(current, p.commandNames(cmp.Or(helped, name)+" "))
	case helped != "":
		return kindWords, nil
	case name == "", name == "help":
		return kindWords, starting(current, p.commandNames(""))
	case name == "completion":
		return kindWords, starting(current, plainWords(Shells))
	case command == nil || command.Complete == "":
		return kindWords, nil
	case command.Complete == Files:
		return kindFiles, nil
	}
	return kindWords, starting(current, plainWords(p.ask(ctx, process, append(common, strings.Fields(command.Complete)...))))
}

// flagOf returns the flag of a word such as --name, --name=value or -n, and again as
// open if the flag takes the next word.
func flagOf(flags *pflag.FlagSet, word string) (f, open *pflag.Flag) {
	name, long := strings.CutPrefix(word, "--")
	name, _, assigned := strings.Cut(name, "=")
	switch {
	case long:
		f = flags.Lookup(name)
	case len(word) == 2:
		f = flags.ShorthandLookup(word[1:])
	}
	if f != nil && f.NoOptDefVal == "" && !assigned {
		open = f
	}
	return f, open
}

// valuesOf completes the value of a flag: its words, or files or directories, depending
// on its placeholder.
func valuesOf(f *pflag.Flag, current string) (string, []candidate) {
	if list, ok := f.Annotations[wordsKey]; ok {
		return kindWords, starting(current, plainWords(list))
	}
	switch placeholder, _ := pflag.UnquoteUsage(f); placeholder {
	case "FILE", "PATH", "PROGRAM":
		return kindFiles, nil
	case "DIR":
		return kindDirectories, nil
	}
	return kindWords, nil
}

// commandNames returns the words that follow the prefix in the names of commands. The prefix is
// empty, or a group and a space.
func (p *Program[C]) commandNames(prefix string) (list []candidate) {
	for _, c := range p.commands() {
		rest, ok := strings.CutPrefix(c.Name, prefix)
		word, _, group := strings.Cut(rest, " ")
		if !ok || slices.ContainsFunc(list, func(o candidate) bool { return o.word == word }) {
			continue
		}
		meaning := c.Short
		if group {
			meaning = strings.Join(p.group(word), ", ")
		}
		list = append(list, candidate{word, meaning})
	}
	return list
}

func flagNames(flags *pflag.FlagSet) (list []candidate) {
	flags.VisitAll(func(f *pflag.Flag) {
		_, meaning := pflag.UnquoteUsage(f)
		list = append(list, candidate{"--" + f.Name, meaning})
	})
	return list
}

func plainWords(words []string) (list []candidate) {
	for _, w := range words {
		list = append(list, candidate{word: w})
	}
	return list
}

func starting(prefix string, list []candidate) []candidate {
	return slices.DeleteFunc(list, func(c candidate) bool { return !strings.HasPrefix(c.word, prefix) })
}

// askTime is the time limit of a completion that contacts another process.
const askTime = 5 * time.Second

// ask runs a command line of this program and returns the words that it prints.
func (p *Program[C]) ask(ctx context.Context, process Process, args []string) []string {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	var out bytes.Buffer
	process.Stdin, process.Stdout, process.Stderr = strings.NewReader(""), &out, io.Discard
	if code := p.Run(ctx, process, args); code != ExitOK {
		return nil
	}
	return strings.Fields(out.String())
}
