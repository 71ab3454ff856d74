package main

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/compute-daemons/compute-daemons/internal/deploy/remote/fakenode"
)

// fleet NODE...: folders that stand for nodes, whose systemd knows the units of
// both daemons, and a SystemConfiguration that names them. The script reaches
// them by --ssh fakessh, which is in its PATH.
func fleet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: fleet NODE...")
	}
	dir := ts.MkAbs("fleet")
	ts.Setenv(fakenode.Folder, dir)
	ts.Check(fakenode.Prepare(dir))
	var names strings.Builder
	for _, node := range args {
		ts.Check(fakenode.Make(dir, node))
		files := map[string]string{"run/fake/arch": map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]}
		for _, unit := range []string{"clientmountd.service", "nnf-dm.service", "nnf-dm.socket"} {
			files["usr/lib/systemd/system/"+unit] = "[Unit]\n"
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
