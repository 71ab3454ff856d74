// Command clientmountd reconciles the ClientMounts of this compute node.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/cli/clientmountd"
	"github.com/compute-daemons/compute-daemons/internal/node"
)

var program = clientmountd.Program()

func main() {
	node.RunChild()
	os.Exit(program.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
