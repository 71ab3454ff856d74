package main

import (
	"context"
	"io"

	"github.com/compute-daemons/compute-daemons/internal/command"
	"github.com/compute-daemons/compute-daemons/internal/config"
)

const program = "clientmountd"

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	p := command.Program{
		Name: program, Table: func() *config.Table { return config.ClientmountdTable(new(config.Clientmountd)) },
		Daemon: runDaemon, Service: asService(),
	}
	return p.Run(ctx, args, environ, stdout, stderr)
}
