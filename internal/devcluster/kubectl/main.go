// Command kubectl is kubectl of the same release as the API server of devcluster. The tests run
// the commands of the guides with it, because distributions have no kubectl or an older one. It
// must not become part of a program that is installed.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubectl/pkg/cmd"
)

func main() { os.Exit(cli.Run(cmd.NewDefaultKubectlCommand())) }
