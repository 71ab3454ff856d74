// Command nnf-dmctl copies data of a job to a global file system by means of nnf-dm.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/dmctl"
)

func main() {
	os.Exit(dmctl.Program.Run(context.Background(), cli.ThisProcess(), os.Args[1:]))
}
