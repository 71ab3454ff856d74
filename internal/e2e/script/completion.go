package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Completion is a program's script for bash, as users source it. The test binary
// plays the program, which is found in PATH from here on.
type Completion struct {
	t       *testing.T
	program string
	file    string
}

// NewCompletion asks the program for its script.
func NewCompletion(t *testing.T, program string) *Completion {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, program)); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	out, err := exec.Command(filepath.Join(bin, program), "completion", "bash").Output()
	if err != nil {
		t.Fatal(err)
	}
	c := &Completion{t, program, filepath.Join(bin, "completion")}
	if err := os.WriteFile(c.file, out, 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// Lint has shellcheck look at it.
func (c *Completion) Lint() {
	c.t.Helper()
	if _, err := exec.LookPath("shellcheck"); err != nil {
		c.t.Skip("shellcheck is not installed, make lint installs it: ", err)
	}
	if out, err := exec.Command("shellcheck", "--shell=bash", c.file).CombinedOutput(); err != nil {
		c.t.Errorf("%v\n%s", err, out)
	}
}

// Offers fails the test unless bash offers these words behind a line.
func (c *Completion) Offers(line, words string) {
	c.t.Helper()
	// bash cuts words at "=" as well.
	all := strings.Split(c.program+" "+strings.ReplaceAll(line, "=", " = "), " ")
	out, err := exec.Command("bash", append([]string{"-c", `
		source "$1"; shift
		COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
		"_${1//-/_}"
		printf '%s\n' "${COMPREPLY[@]}"`, "bash", c.file}, all...)...).Output()
	got, want := strings.Fields(string(out)), strings.Fields(words)
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		c.t.Errorf("%q: %v %q, want %q", line, err, got, want)
	}
}
