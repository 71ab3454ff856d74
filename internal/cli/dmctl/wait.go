package dmctl

import (
	"context"

	"github.com/spf13/pflag"
)

var waitCommand = &command{
	Name: "wait", Args: "ID...", Short: "wait until copies have ended, and show their progress",
	Long:  "Ctrl-C detaches: the copies continue. Ctrl-C twice cancels them.",
	Least: 1, Most: -1, Complete: ids, Run: withIDs(runWait),
	Flags: func(f *pflag.FlagSet, v *call) { waitFlags(f, v) },
}

func runWait(ctx context.Context, v *call) error {
	all, err := v.follow(ctx, v.Args)
	if err != nil {
		return err
	}
	return v.showAll(all)
}
