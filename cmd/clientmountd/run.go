package main

import (
	"context"
	"io"

	"github.com/compute-daemons/compute-daemons/internal/command"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const program = "clientmountd"

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	p := command.Program{
		Name: program, Table: func() *config.Table { return config.ClientmountdTable(new(config.Clientmountd)) },
		Daemon: runDaemon, Verify: verify, Service: asService(),
	}
	return p.Run(ctx, args, environ, stdout, stderr)
}

// verify finds what the table of settings cannot judge.
func verify(v *command.Invocation) error {
	var c config.Clientmountd
	if _, err := v.Load(config.ClientmountdTable(&c)); err != nil {
		return err
	}
	return kube.CheckEncoding(c.Kubernetes.TokenFile, c.Kubernetes.CertFile)
}
