// Command nnf-deploy installs both daemons on every compute node of a system.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/cli/deploy"
)

func main() {
	os.Exit(deploy.Program.Run(context.Background(), cli.ThisProcess(), os.Args[1:]))
}
