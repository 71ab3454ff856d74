package main

import (
	"errors"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/deploy/commands"
)

// TestMain makes the program a command of the scripts: each call is a process of
// its own, with an environment that holds nothing of ours.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){commands.Name: main}) }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": exits},
	})
}

// exits CODE ARGS...: the program must end with that code. Whatever it says on
// standard error begins with its name.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: exits CODE ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	// One that waits although it should not must not wait for ever.
	err = ts.Exec("timeout", append([]string{"30", commands.Name}, args[1:]...)...)
	code := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !strings.HasPrefix(line, commands.Name+": ") {
			ts.Fatalf("a line without the program's name: %s", line)
		}
	}
}
