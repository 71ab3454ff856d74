package dmctl

import (
	"context"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

var cancelCommand = &command{
	Name: "cancel", Args: "ID...", Short: "cancel copies",
	Long: `The command requests the cancellation and returns. With --wait it returns when the
copies have ended, with exit code 0 however they ended.`,
	Least: 1, Most: -1, Complete: ids, Run: withIDs(runCancel),
	Flags: func(f *pflag.FlagSet, v *call) {
		f.BoolVar(&v.wait, "wait", false, "wait until the copies have ended")
		waitFlags(f, v)
	},
}

func runCancel(ctx context.Context, v *call) error {
	if err := v.cancelAll(ctx, v.Args); err != nil || !v.wait {
		return err
	}
	all, err := v.follow(ctx, v.Args)
	if err != nil {
		return err
	}
	if err := v.showAll(all); err != nil {
		return err
	}
	v.Code = ExitOK
	return nil
}

func (v *call) cancelAll(ctx context.Context, ids []string) error {
	ctx, cancel := v.Interruptible(ctx, detached)
	defer cancel(nil)
	return cli.Interrupted(ctx, v.client.Cancel(ctx, ids))
}
