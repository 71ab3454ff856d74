package main

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

// TestMain provides the program and the fake ssh as commands for the scripts. Each call is a
// separate process with the environment of the script.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){deploy.Name: main, "fakessh": fakenode.Main})
}

func TestScripts(t *testing.T) { testscript.Run(t, scripts()) }

// scripts are the parameters of the scripts in testdata.
func scripts() testscript.Params {
	return testscript.Params{
		Dir:                 "testdata",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"exits": script.Exits(deploy.Name), "fleet": fleet, "fault": fault, "timelines": timelines, "health": health, "doctor": doctor},
	}
}

// fleet NODE... creates directories for fake nodes, on which the units of both daemons are
// installed, and system.yaml, which lists the nodes. Scripts reach them with --ssh fakessh,
// which is in the PATH.
func fleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fleet NODE...")
	}
	dir := ts.MkAbs("fleet")
	ts.Setenv(fakenode.Variable, dir)
	ts.Check(fakenode.Prepare(dir))
	var names strings.Builder
	for _, node := range args {
		ts.Check(fakenode.Make(dir, node))
		files := map[string]string{"run/fake/arch": map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]}
		for _, d := range product.Daemons {
			for _, unit := range d.Units() {
				files[product.PackageDirectory+"/"+unit] = "[Unit]\n"
			}
		}
		for path, text := range files {
			ts.Check(os.WriteFile(filepath.Join(dir, node, path), []byte(text), 0o600))
		}
		names.WriteString("  - {name: " + node + "}\n")
	}
	ts.Check(os.WriteFile(ts.MkAbs("system.yaml"), []byte("apiVersion: dataworkflowservices.github.io/v1alpha7\nkind: SystemConfiguration\nmetadata: {name: default, namespace: default}\nspec:\n  externalComputeNodes:\n"+names.String()), 0o600))
}

// fault NODE [FAULT...] sets the fault of a node, as in fakenode.Main, or removes it.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fault NODE [FAULT...]")
	}
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("fleet"), args[0]+".fault"), []byte(strings.Join(args[1:], " ")), 0o600))
}

var update = flag.Bool("update", false, "write golden texts into the scripts instead of comparing")
