package main

import (
	"flag"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client/fakedaemon"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

var update = flag.Bool("update", false, "write golden texts into the scripts instead of comparing")

// TestMain provides the program as a command for the scripts. Each call is a separate process
// with the environment of the script.
func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){dmctl.Name: main}) }

type daemonKey struct{}

// running is the daemon of a script.
type running struct{ *fakedaemon.Daemon }

func TestScripts(t *testing.T) { testscript.Run(t, scripts()) }

// scripts are the parameters of the scripts in testdata. Each has a socket for its daemon.
func scripts() testscript.Params {
	return testscript.Params{
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
	}
}

// daemon new|same|old|stop|left|resume|finish|log controls a fake daemon with or without
// version 2 of the API; same is of the same release as the program. left leaves a socket on
// which no process listens. log writes the calls so far to the file daemon-log.
func daemon(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: daemon new|same|old|stop|left|resume|finish|log")
	}
	d := ts.Value(daemonKey{}).(*running)
	switch args[0] {
	case "new", "same", "old":
		fresh, err := fakedaemon.Start(ts.Getenv("NNF_DM_SOCKET"), args[0] == "old")
		ts.Check(err)
		if args[0] == "same" {
			fresh.SetVersion(version.Version)
		}
		ts.Defer(fresh.Stop)
		d.Daemon = fresh
	case "stop":
		d.Stop()
	case "left":
		l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: ts.Getenv("NNF_DM_SOCKET")})
		ts.Check(err)
		l.SetUnlinkOnClose(false)
		ts.Check(l.Close())
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
