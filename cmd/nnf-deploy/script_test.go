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

// fleet NODE...: directories that stand for nodes, whose systemd knows the units of
// both daemons, and a SystemConfiguration that names them. The script reaches
// them by --ssh fakessh, which is in its PATH.
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

// fault NODE WORDS...: see fakenode.Main; without words it is well again.
func fault(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fault NODE WORDS...")
	}
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs("fleet"), args[0]+".fault"), []byte(strings.Join(args[1:], " ")), 0o600))
}

var update = flag.Bool("update", false, "write golden texts into the scripts and the documentation instead of comparing")
