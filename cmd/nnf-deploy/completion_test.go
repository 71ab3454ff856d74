package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// completionScript is what users source, and a folder with the program in it.
func completionScript(t *testing.T) (script, bin string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin = t.TempDir()
	if err := os.Symlink(exe, filepath.Join(bin, "nnf-deploy")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "nnf-deploy"), "completion", "bash").Output()
	if err != nil {
		t.Fatal(err)
	}
	script = filepath.Join(bin, "completion")
	if err := os.WriteFile(script, out, 0o644); err != nil {
		t.Fatal(err)
	}
	return script, bin
}

func TestCompletionLint(t *testing.T) {
	if _, err := exec.LookPath("shellcheck"); err != nil {
		t.Skip("shellcheck is not installed, make lint installs it: ", err)
	}
	script, _ := completionScript(t)
	if out, err := exec.Command("shellcheck", "--shell=bash", script).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCompletion(t *testing.T) {
	script, bin := completionScript(t)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(files, "credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ line, want string }{
		{"cred", "credentials"},
		{"help ver", "version"},
		{"-o json cred", "credentials"},
		{"--kubeconfig cred cred", "credentials"},
		{"credentials --da", "--daemon"},
		{"credentials --daemon ", "clientmountd nnf-dm"},
		{"credentials --daemon nnf-dm --daemon=cl", "clientmountd"},
		{"credentials --bou", "--bound"},
		{"credentials --bound --no", "--node"},
		{"credentials --bound --node ", ""},
		{"credentials --lifetime ", ""},
		{"credentials --out " + files + "/c", files + "/credentials"},
		{"--kubeconfig " + files + "/c", files + "/config " + files + "/credentials"},
		{"--context ", ""},
		{"-o ", "text json"},
		{"credentials --output=j", "json"},
		{"version --da", ""},
		{"completion ", "bash"},
		{"credentials ", ""},
	} {
		// bash cuts words at "=" as well.
		words := strings.Split("nnf-deploy "+strings.ReplaceAll(tt.line, "=", " = "), " ")
		cmd := exec.Command("bash", append([]string{"-c", `
			source "$1"; shift
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
			_nnf_deploy
			printf '%s\n' "${COMPREPLY[@]}"`, "bash", script}, words...)...)
		out, err := cmd.CombinedOutput()
		got, want := strings.Fields(string(out)), strings.Fields(tt.want)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v %q, want %q", tt.line, err, got, want)
		}
	}
}
