package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

func TestCompletionLint(t *testing.T) {
	for _, shell := range cli.Shells {
		t.Run(shell, func(t *testing.T) { script.NewCompletion(t, dmctl.Name, shell).Lint() })
	}
}

func TestCompletion(t *testing.T) {
	d := startDaemon(t, false)
	t.Setenv("NNF_DM_SOCKET", d.Socket)
	t.Setenv("DW_WORKFLOW_NAME", "job")
	if out, err := exec.Command("nnf-dmctl", "copy", "/mnt/hold", "/mnt/pending", "/lus/").CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	files := t.TempDir()
	for _, name := range []string{"result", "resume"} {
		if err := os.WriteFile(filepath.Join(files, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	all := "copy status wait cancel list delete doctor version completion help"
	ids := "nnf-dm-node-1 nnf-dm-node-2"
	offers := [][2]string{
		{"", all},
		{"c", "copy cancel completion"},
		{"help st", "status"},
		{"status ", ids},
		{"wait nnf-dm-node-1 nnf-dm-node-2", "nnf-dm-node-2"},
		{"-q cancel --wait nnf", ids},
		{"delete --timeout 5s n", ids},
		{"delete --socket=/nonexistent ", ""},
		{"wait --tim", "--timeout"},
		{"copy --wait --d", "--dcp-options --dry-run"},
		{"status --dcp", ""},
		{"-o ", "text json"},
		{"list --output=j", "json"},
		{"copy --profile ", ""},
		{"copy --slots 4 " + files + "/res", files + "/result " + files + "/resume"},
		{"copy --batch " + files + "/resu", files + "/result " + files + "/resume"},
		{"--workflow status list --q", "--quiet"},
		{"completion ", "bash zsh fish"},
		{"list ", ""},
	}
	for _, shell := range cli.Shells {
		t.Run(shell, func(t *testing.T) {
			script.NewCompletion(t, dmctl.Name, shell).Offers(offers)
		})
	}
}
