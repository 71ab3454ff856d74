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
	if err := os.Symlink(exe, filepath.Join(bin, "nnf-dmctl")); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(bin, "nnf-dmctl"), "completion", "bash").Output()
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
	d := startDaemon(t, false)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	t.Setenv("DW_WORKFLOW_NAME", "job")
	if out, err := exec.Command("nnf-dmctl", "--socket", d.Socket, "copy", "/mnt/hold", "/mnt/pending", "/lus/").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	files := t.TempDir()
	for _, name := range []string{"result", "resume"} {
		if err := os.WriteFile(filepath.Join(files, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all := "copy status wait cancel list delete version completion help"
	ids := "nnf-dm-node-1 nnf-dm-node-2"
	for _, tt := range []struct{ line, want string }{
		{"", all},
		{"c", "copy cancel completion"},
		{"help st", "status"},
		{"status ", ids},
		{"wait nnf-dm-node-1 nnf-dm-node-2", "nnf-dm-node-2"},
		{"-q cancel --wait nnf", ids},
		{"delete --timeout 5s n", ids},
		{"delete --socket=/nonexistent ", ""},
		{"wait --tim", "--timeout"},
		{"copy --wait --d", "--dcp-options --dryrun"},
		{"status --dcp", ""},
		{"-o ", "text json"},
		{"list --output=j", "json"},
		{"copy --profile ", ""},
		{"copy --slots 4 " + files + "/res", files + "/result " + files + "/resume"},
		{"copy --batch " + files + "/resu", files + "/result " + files + "/resume"},
		{"--workflow status list --q", "--quiet"},
		{"completion ", "bash"},
		{"list ", ""},
	} {
		// bash cuts words at "=" as well.
		words := strings.Split("nnf-dmctl "+strings.ReplaceAll(tt.line, "=", " = "), " ")
		cmd := exec.Command("bash", append([]string{"-c", `
			source "$1"; shift
			COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
			_nnf_dmctl
			printf '%s\n' "${COMPREPLY[@]}"`, "bash", script}, words...)...)
		cmd.Env = append(os.Environ(), "NNF_DM_SOCKET="+d.Socket)
		out, err := cmd.CombinedOutput()
		got, want := strings.Fields(string(out)), strings.Fields(tt.want)
		slices.Sort(got)
		slices.Sort(want)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v %q, want %q", tt.line, err, got, want)
		}
	}
}
