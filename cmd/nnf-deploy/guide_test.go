package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/compute-daemons/compute-daemons/internal/e2e/manual"
	"github.com/compute-daemons/compute-daemons/internal/e2e/script"
)

// TestDeployGuide runs commands of docs/nnf-deploy.md on fake nodes that have both daemons. A
// wrapper adds the flags that replace ssh and the cluster, and --force, because the programs
// on the fake nodes do not report their mounts.
func TestDeployGuide(t *testing.T) {
	blocks := manual.Commands(t, "../..", "docs/nnf-deploy.md", "cmd/nnf-deploy TestDeployGuide")
	slices.Reverse(blocks) // the page uninstalls before it explains host lists
	var nodes strings.Builder
	for i := range 20 {
		fmt.Fprintf(&nodes, " compute-%02d", i+1)
	}
	const flags = " --ssh fakessh --system-config system.yaml"
	const token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.signature\n"
	steps := "fleet" + nodes.String() + " compute-30\nmkdir bin\ncp /bin/true bin/clientmountd\ncp /bin/true bin/nnf-dm\n" +
		"exec nnf-deploy install" + flags + " --binary-dir bin --credentials credentials --kubernetes-service-host fd00::1 --kubernetes-service-port 6443\n" +
		"chmod 755 wrapper/nnf-deploy\nenv PATH=$WORK/wrapper:$PATH\nexec sh -eu guide.sh\n" +
		"! stderr error:\nstdout '^compute-30 +clientmountd '\nstdout '^compute-20 +ok '\n" +
		"! exists fleet/compute-20/usr/bin/nnf-dm\nexists fleet/compute-30/usr/bin/nnf-dm\n"
	for name, text := range map[string]string{
		"credentials/clientmountd/service.token": token, "credentials/clientmountd/service.cert": "ca\n",
		"credentials/nnf-dm/service.token": token, "credentials/nnf-dm/service.cert": "ca\n",
		"wrapper/nnf-deploy": "#!/bin/sh\nPATH=${PATH#*:}\nforce=\n[ \"$1\" != uninstall ] || force=--force\nexec nnf-deploy \"$@\" $force" + flags + "\n",
		"guide.sh":           strings.Join(blocks, ""),
	} {
		steps += "-- " + name + " --\n" + text
	}
	script.RunText(t, scripts(), steps)
}
