package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

// TestMain makes the program a command of the scripts: each call is a process of
// its own, with an environment that holds nothing of ours.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){deploy.Name: main, "fakessh": fakenode.Main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": script.Exits(deploy.Name), "fleet": fleet, "fault": fault},
	})
}
