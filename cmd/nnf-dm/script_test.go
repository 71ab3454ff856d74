package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

// TestMain makes the program a command: each call is a process of its own.
func TestMain(m *testing.M) {
	machine = script.Machine()
	testscript.Main(m, map[string]func(){program: main, "systemctl": script.Systemctl})
}

// In a script the environment holds nothing of ours.
func TestScripts(t *testing.T) { script.Run(t, program, *update) }
