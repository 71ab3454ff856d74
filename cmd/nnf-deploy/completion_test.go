package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

func TestCompletionLint(t *testing.T) {
	for _, shell := range cli.Shells {
		t.Run(shell, func(t *testing.T) { script.NewCompletion(t, deploy.Name, shell).Lint() })
	}
}

func TestCompletion(t *testing.T) {
	files := t.TempDir()
	if err := os.WriteFile(filepath.Join(files, "config"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(files, "credentials"), 0o700); err != nil {
		t.Fatal(err)
	}
	offers := [][2]string{
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
		{"completion ", "bash zsh fish"},
		{"credentials ", ""},
	}
	for _, shell := range cli.Shells {
		t.Run(shell, func(t *testing.T) {
			script.NewCompletion(t, deploy.Name, shell).Offers(offers)
		})
	}
}
