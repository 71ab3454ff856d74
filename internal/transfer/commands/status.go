package commands

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/subcommand"
)

var statusCommand = &command{
	Name: "status", Args: "ID...", Short: "tell how far copies are",
	Long:  "The exit code tells how those that have ended ended; 0 when all go on or have succeeded.",
	Least: 1, Most: -1, Complete: ids, Run: withIDs(runStatus),
}

func runStatus(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	all, err := v.client.Status(ctx, v.Args)
	if err != nil {
		return subcommand.Interrupted(ctx, err)
	}
	return v.showAll(all)
}
