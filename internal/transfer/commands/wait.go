package commands

import (
	"context"

	"github.com/spf13/pflag"
)

var waitCommand = &command{
	name: "wait", args: "ID...", short: "wait for the end of copies and show their progress",
	long:  "Ctrl-C detaches: the copies go on. Ctrl-C twice cancels them.",
	least: 1, most: -1, ids: true, run: runWait,
	flags: func(f *pflag.FlagSet, s *settings) { waitFlags(f, s) },
}

func runWait(ctx context.Context, v *call) error {
	all, err := v.follow(ctx, v.args)
	if err != nil {
		return err
	}
	return v.showAll(all)
}
