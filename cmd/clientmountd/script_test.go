package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

// TestMain makes the program a command of the scripts: each call is a process of
// its own, with an environment that holds nothing of ours.
func TestMain(m *testing.M) {
	node.RunChild()
	machine = script.Machine()
	testscript.Main(m, map[string]func(){program: main, "systemctl": script.Systemctl})
}

func TestScripts(t *testing.T) { script.Run(t, program, *update) }
