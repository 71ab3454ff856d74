package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client/fakedaemon"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

var update = flag.Bool("update", false, "write golden texts into the scripts and the documentation instead of comparing")

// TestMain makes the program a command of the scripts: each call is a process of
// its own, with an environment that holds nothing of ours.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){dmctl.Name: main}) }

type daemonKey struct{}

// running holds a script's daemon.
type running struct{ *fakedaemon.Daemon }

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			// The path of a socket has at most 107 bytes (unix(7)).
			dir, err := os.MkdirTemp("", "dm")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("NNF_DM_SOCKET", filepath.Join(dir, "s"))
			e.Setenv("DW_WORKFLOW_NAME", "job")
			e.Values[daemonKey{}] = new(running)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"daemon": daemon, "exits": script.Exits(dmctl.Name),
		},
	})
}

// daemon new|old|stop|resume|finish|log: a fake daemon with or without version 2 of
// the API; log writes the calls so far into the file daemon-log.
func daemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon new|old|stop|resume|finish|log")
	}
	d := ts.Value(daemonKey{}).(*running)
	switch args[0] {
	case "new", "old":
		fresh, err := fakedaemon.Start(ts.Getenv("NNF_DM_SOCKET"), args[0] == "old")
		ts.Check(err)
		ts.Defer(fresh.Stop)
		d.Daemon = fresh
	case "stop":
		d.Stop()
	case "resume":
		ts.Check(d.Resume())
	case "finish":
		d.Finish()
	case "log":
		ts.Check(os.WriteFile(ts.MkAbs("daemon-log"), []byte(strings.Join(append(d.Log(), ""), "\n")), 0o644))
	default:
		ts.Fatalf("unknown: %s", args[0])
	}
}
