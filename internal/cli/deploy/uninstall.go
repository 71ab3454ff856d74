package deploy

import (
	"context"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type uninstallSettings struct {
	rollout
	force bool
}

var uninstallCommand = &command{
	Name: "uninstall", Args: "[NODE...]", Short: "remove the daemons, and everything else that install put on the nodes",
	Long: `Without NODE, the command works on all compute nodes of the system. NODE may be a
host list such as compute-[01-20,30]. The command stops the daemons and removes
packages or programs, units, credentials and configuration. It keeps and lists your
own files, and does not touch mounts. If clientmountd has mounts in place on a node,
or does not report whether it has, the node is left unchanged unless --force is
given, because the mounts would never be unmounted.`,
	Examples: []cli.Example{
		{Comment: "Show what would be removed:", Lines: "nnf-deploy uninstall --dry-run compute-07"},
	},
	Most: -1, Flags: uninstallFlags, Run: runUninstall,
}

func uninstallFlags(f *pflag.FlagSet, v *call) {
	c := &v.uninstall
	f.BoolVar(&c.dryRun, "dry-run", false, "show what would change on each node, and change nothing")
	f.BoolVar(&c.force, "force", false, "uninstall even if clientmountd has mounts in place, or does not report whether it has")
	c.rollout.flags(f)
	f.DurationVar(&c.limit, "node-timeout", 15*time.Minute, "treat a node that is not finished within `DURATION` as failed")
	c.nodes.flags(f, "uninstall")
}

func runUninstall(ctx context.Context, v *call) error {
	c := &v.uninstall
	if err := c.rollout.check(); err != nil {
		return err
	}
	if c.limit < time.Second {
		return usage.Errorf("--node-timeout must be at least 1s")
	}
	return v.rollOut(ctx, &c.rollout, func(ctx context.Context) (*job, target.Want, error) { return v.prepareNodes(ctx, &c.nodes) },
		func(ctx, stop context.Context, w *target.Want, step func(string)) fleet.Result {
			report, err := target.Probe(stop, c.nodes.shell(), w)
			if err != nil {
				return failed(err)
			}
			plan, err := target.Remove(w, report, c.force)
			if err != nil {
				return failed(err)
			}
			return apply(ctx, stop, c.nodes.shell(), w.Node, plan, c.dryRun, step)
		})
}

// prepareNodes prepares a command that installs nothing: it selects nodes and daemons.
func (v *call) prepareNodes(ctx context.Context, n *nodesSettings) (*job, target.Want, error) {
	j, err := v.newJob(ctx, n, v.Args)
	if err != nil {
		return nil, target.Want{}, err
	}
	var daemons []target.Daemon
	for _, d := range j.daemons {
		daemons = append(daemons, target.Daemon{Name: d.Name, Bin: d.Bin, Account: d.Account})
	}
	want := wantOf(j.nodes[0], inventory.Address{}, daemons)
	return j, want, want.Check()
}
