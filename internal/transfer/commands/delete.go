package commands

import "context"

var deleteCommand = &command{
	name: "delete", args: "ID...", short: "forget copies that have ended",
	long:  "Copies that nobody deletes go with the job's workflow.",
	least: 1, most: -1, ids: true, run: runDelete,
}

func runDelete(ctx context.Context, v *call) error {
	ctx, cancel := v.interruptible(ctx)
	defer cancel(nil)
	return interrupted(ctx, v.client.Delete(ctx, v.args))
}
