package commands

import "context"

var statusCommand = &command{
	name: "status", args: "ID...", short: "tell how far copies are",
	long:  "The exit code tells how those that have ended ended; 0 when all go on or have succeeded.",
	least: 1, most: -1, ids: true, run: runStatus,
}

func runStatus(ctx context.Context, v *call) error {
	ctx, cancel := v.interruptible(ctx)
	defer cancel(nil)
	all, err := v.client.Status(ctx, v.args)
	if err != nil {
		return interrupted(ctx, err)
	}
	return v.showAll(all)
}
