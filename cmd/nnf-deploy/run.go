package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/compute-daemons/compute-daemons/internal/deploy/commands"
)

func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	p := commands.Program{Environ: environ, Stdin: stdin, Stdout: stdout, Stderr: stderr, Signals: signals}
	return p.Run(ctx, args)
}
