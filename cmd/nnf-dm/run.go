package main

import (
	"context"
	"io"

	"github.com/compute-daemons/compute-daemons/internal/command"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

const program = "nnf-dm"

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	p := command.Program{
		Name: program, Table: func() *config.Table { return config.NnfdmTable(new(config.Nnfdm)) },
		Daemon: runDaemon, Verify: verify, Service: asService(),
	}
	return p.Run(ctx, args, environ, stdout, stderr)
}

// verify finds what the table of settings cannot judge.
func verify(v *command.Invocation) error {
	var c config.Nnfdm
	if _, err := v.Load(config.NnfdmTable(&c)); err != nil {
		return err
	}
	if _, err := settingsOf(&c); err != nil {
		return err
	}
	return kube.CheckEncoding(c.Kubernetes.TokenFile, c.Kubernetes.CertFile)
}
