package commands

import (
	"context"

	"github.com/spf13/pflag"
)

var cancelCommand = &command{
	name: "cancel", args: "ID...", short: "end copies before they are done",
	long: `It asks for the end and returns. With --wait it returns when they have ended, with
exit code 0 however they did.`,
	least: 1, most: -1, ids: true, run: runCancel,
	flags: func(f *pflag.FlagSet, s *settings) {
		f.BoolVar(&s.wait, "wait", false, "wait until they have ended")
		waitFlags(f, s)
	},
}

func runCancel(ctx context.Context, v *call) error {
	if err := v.cancelAll(ctx, v.args); err != nil || !v.wait {
		return err
	}
	all, err := v.follow(ctx, v.args)
	if err != nil {
		return err
	}
	if err := v.showAll(all); err != nil {
		return err
	}
	v.code = ExitOK
	return nil
}

func (v *call) cancelAll(ctx context.Context, ids []string) error {
	ctx, cancel := v.interruptible(ctx)
	defer cancel(nil)
	return interrupted(ctx, v.client.Cancel(ctx, ids))
}
