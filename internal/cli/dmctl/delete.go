package dmctl

import (
	"context"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

var deleteCommand = &command{
	Name: "delete", Args: "ID...", Short: "delete the records of copies that have ended",
	Long:  "Records that are not deleted are removed with the workflow of the job.",
	Least: 1, Most: -1, Complete: ids, Run: withIDs(runDelete),
}

func runDelete(ctx context.Context, v *call) error {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	return cli.Interrupted(ctx, v.client.Delete(ctx, v.Args))
}
