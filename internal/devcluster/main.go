// Devcluster runs a real Kubernetes API server with everything that the
// daemons need from a Near-Node Flash system, in one process on the loopback
// address, and does by hand to its objects what a rabbit would do. It is for
// tests and demonstrations; nothing of it is installed on a node.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/devcluster/copytool"
)

func main() {
	if copytool.Is(os.Args[0]) { // a rabbit's command has started us as mpirun or dcp
		os.Exit(copytool.Run(os.Args, os.Stdout, os.Stderr))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
