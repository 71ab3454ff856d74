// Command nnf-deploy brings both daemons to every compute of a system.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/deploy/commands"
	"github.com/compute-daemons/compute-daemons/internal/subcommand"
)

func main() {
	os.Exit(commands.Program.Run(context.Background(), subcommand.ThisProcess(), os.Args[1:]))
}
