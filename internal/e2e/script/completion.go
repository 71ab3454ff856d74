package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/require"
)

// Completion is the completion script of a program for a shell.
type Completion struct {
	t                    *testing.T
	program, shell, file string
}

// NewCompletion gets the script for bash, zsh or fish from the program, which is the
// test binary, and adds the program to PATH. It skips the test if the shell is not
// installed.
func NewCompletion(t *testing.T, program, shell string) *Completion {
	t.Helper()
	if _, err := exec.LookPath(shell); err != nil {
		require.Missing(t, err.Error())
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, program)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	out, err := exec.Command(filepath.Join(bin, program), "completion", shell).Output()
	if err != nil {
		t.Fatal(err)
	}
	c := &Completion{t, program, shell, filepath.Join(bin, "_"+program)}
	if err := os.WriteFile(c.file, out, 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// Lint checks a bash script with shellcheck, and other scripts with their shell.
func (c *Completion) Lint() {
	c.t.Helper()
	check := []string{c.shell, "-n", c.file}
	if c.shell == "bash" {
		require.Tool(c.t, "shellcheck")
		check = []string{"shellcheck", "--shell=bash", c.file}
	}
	if out, err := exec.Command(check[0], check[1:]...).CombinedOutput(); err != nil {
		c.t.Errorf("%v\n%s", err, out)
	}
}

// Offers checks pairs of a command line (without the program) and words: the shell must
// offer exactly these words at the end of the line.
func (c *Completion) Offers(list [][2]string) {
	c.t.Helper()
	var lines []string
	for _, pair := range list {
		lines = append(lines, c.program+" "+pair[0])
	}
	offered := map[string]func([]string) [][]string{"bash": c.inBash, "zsh": c.inZsh, "fish": c.inFish}[c.shell](lines)
	for i, pair := range list {
		got, want := c.plain(offered[i]), c.plain(strings.Fields(pair[1]))
		if !slices.Equal(got, want) {
			c.t.Errorf("%q: %q, want %q", pair[0], got, want)
		}
	}
}

// plain sorts words and removes the parts that differ between shells: the flag of
// --flag=word, the slash after a directory, and the directory of a file.
func (c *Completion) plain(words []string) (list []string) {
	for _, w := range words {
		if flag, value, ok := strings.Cut(w, "="); ok && strings.HasPrefix(flag, "--") {
			w = value
		}
		if w = strings.TrimSuffix(w, "/"); c.shell == "zsh" {
			w = w[strings.LastIndexByte(w, '/')+1:]
		}
		list = append(list, w)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

func (c *Completion) run(program string, args ...string) string {
	c.t.Helper()
	out, err := exec.Command(program, args...).CombinedOutput()
	if err != nil {
		c.t.Fatalf("%s: %v\n%s", program, err, out)
	}
	return string(out)
}

func (c *Completion) inBash(lines []string) (offered [][]string) {
	c.t.Helper()
	for _, line := range lines {
		words := strings.Split(strings.ReplaceAll(line, "=", " = "), " ") // bash splits words at "="
		offered = append(offered, strings.Fields(c.run("bash", append([]string{"-c", `
			source "$1"; shift
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
			"_${1//-/_}"
			printf '%s\n' "${COMPREPLY[@]}"`, "bash", c.file}, words...)...)))
	}
	return offered
}

func (c *Completion) inFish(lines []string) (offered [][]string) {
	c.t.Helper()
	for _, line := range lines {
		var words []string
		for word := range strings.Lines(c.run("fish", "--no-config", "-c", `source $argv[1]; complete -C"$argv[2]"`, c.file, line)) {
			word, _, _ = strings.Cut(strings.TrimSpace(word), "\t") // the description
			words = append(words, word)
		}
		offered = append(offered, words)
	}
	return offered
}

// zshSetup makes an interactive zsh write the words that it offers to a file.
const zshSetup = `
	autoload -Uz compinit && compinit -u -D
	source "$SCRIPT"
	compadd() {
		if [[ ${argv[1,(i)(-|--)]} != *-[OAD]\ * ]]; then
			local -a hits; local hit
			builtin compadd -A hits "$@"
			for hit in $hits; do print -r -- "$IPREFIX$hit" >>"$OFFERED"; done
		fi
		builtin compadd "$@"
	}
	finished() { print -r -- "--" >>"$OFFERED"; print -r -- "is finish""ed"; comppostfuncs=(finished) }
	comppostfuncs=(finished)
	bindkey -e
	bindkey '^I' complete-word
`

// inZsh types the lines and the tab key into zsh on a pseudo-terminal.
func (c *Completion) inZsh(lines []string) (offered [][]string) {
	c.t.Helper()
	dir := c.t.TempDir()
	setup, file := filepath.Join(dir, "setup"), filepath.Join(dir, "offered")
	if err := os.WriteFile(setup, []byte(zshSetup), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.t.Setenv("SCRIPT", c.file)
	c.t.Setenv("OFFERED", file)
	c.run("timeout", append([]string{"60", "zsh", "-f", "-c", `
		zmodload zsh/zpty
		zpty shell zsh -f -i
		zpty -w shell "source $1"; shift
		for line; do
			zpty -w -n shell $'\x15'"$line"$'\t' # after Ctrl-U, which removes the line before
			zpty -r shell reply '*is finished*'
		done`, "zsh", setup}, lines...)...)
	data, err := os.ReadFile(file)
	if err != nil {
		c.t.Fatal(err)
	}
	for part := range strings.SplitSeq(strings.TrimSuffix(string(data), "--\n"), "--\n") {
		offered = append(offered, strings.Fields(part))
	}
	if len(offered) != len(lines) {
		c.t.Fatalf("zsh has completed %d of %d lines", len(offered), len(lines))
	}
	return offered
}
