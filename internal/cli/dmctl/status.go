package dmctl

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

var statusCommand = &command{
	Name: "status", Args: "ID...", Short: "show the state of copies",
	Long:  "The exit code is 0 if every copy is still running or has succeeded. Otherwise it\nreports how the copies have ended.",
	Least: 1, Most: -1, Complete: ids, Run: withIDs(runStatus),
}

func runStatus(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	all, err := v.client.Status(ctx, v.Args)
	if err != nil {
		return cli.Interrupted(ctx, err)
	}
	return v.showAll(all)
}
