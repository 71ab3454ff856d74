// Devcluster runs a real Kubernetes API server with everything that the daemons need
// from a Near-Node Flash system, in one process on the loopback address. It can also
// process data movements like a rabbit. It is for tests and demos, and is never
// installed on a node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/copytool"
)

func main() {
	if copytool.Is(os.Args[0]) { // started as mpirun or dcp by the command of a rabbit
		os.Exit(copytool.Run(os.Args, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
