// Command nnf-dm serves the Copy Offload API to the jobs on this compute node.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
)

var program = server.Program()

func main() {
	os.Exit(program.Run(context.Background(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr))
}
