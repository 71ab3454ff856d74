// Command nnf-dmctl copies data of a job through the rabbit.
package main

import (
	"context"
	"os"

	"github.com/compute-daemons/compute-daemons/internal/subcommand"
	"github.com/compute-daemons/compute-daemons/internal/transfer/commands"
)

func main() {
	os.Exit(commands.Program.Run(context.Background(), subcommand.ThisProcess(), os.Args[1:]))
}
