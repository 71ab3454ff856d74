package deploy

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/deploy/fleet"
	"github.com/compute-daemons/compute-daemons/internal/deploy/inventory"
	"github.com/compute-daemons/compute-daemons/internal/deploy/target"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

type uninstallSettings struct {
	nodes         nodesSettings
	dryRun, force bool
	batch         string
	maxFailures   int
	limit         time.Duration
}

var uninstallCommand = &command{
	Name: "uninstall", Args: "[NODE...]", Short: "remove the daemons and all that install has brought from the nodes",
	Long: `Without NODE, from all computes of the system; NODE may be a host list such as
compute-[01-20,30]. Daemons are stopped, packages or
programs, units, credentials and configuration removed. Files of your own stay and
are named. Mounts are never touched; a node on which clientmountd has mounts in
place, or does not report whether it has, is left unchanged unless --force is given,
because the mounts would never be unmounted.`,
	Examples: []cli.Example{
		{Comment: "What would be removed:", Lines: "nnf-deploy uninstall --dry-run compute-07"},
	},
	Most: -1, Flags: uninstallFlags, Run: runUninstall,
}

func uninstallFlags(f *pflag.FlagSet, v *call) {
	c := &v.uninstall
	f.BoolVar(&c.dryRun, "dry-run", false, "show what would be different on each node, and change nothing")
	f.BoolVar(&c.force, "force", false, "even if clientmountd has mounts in place, or does not report whether it has")
	f.StringVar(&c.batch, "batch", "", "`N` nodes, or N% of them, are through before the next are begun")
	f.IntVar(&c.maxFailures, "max-failures", 0, "begin no node any more when `N` have failed; 0: go on")
	f.DurationVar(&c.limit, "node-timeout", 15*time.Minute, "a node that is not through within `DURATION` has failed")
	c.nodes.flags(f, "uninstall")
}

func runUninstall(ctx context.Context, v *call) error {
	c := &v.uninstall
	if _, err := fleet.ParseBatch(c.batch, 1); err != nil {
		return usage.Errorf("--batch: %v", err)
	}
	switch {
	case c.maxFailures < 0:
		return usage.Errorf("--max-failures cannot be negative")
	case c.limit < time.Second:
		return usage.Errorf("--node-timeout is a second at least")
	}
	j, want, err := v.early(ctx, func(ctx context.Context) (*job, target.Want, error) { return v.onlyNodes(ctx, &c.nodes) })
	if errors.Is(err, errNoneFailed) {
		return v.finish(nil, nil, c.dryRun)
	}
	if err != nil {
		return err
	}
	batch, err := fleet.ParseBatch(c.batch, len(j.nodes))
	if err != nil {
		return err
	}
	results, err := j.onNodes(ctx, fleet.Options{Parallel: c.nodes.parallel, Batch: batch, MaxFailures: c.maxFailures}, c.dryRun,
		limited(c.limit, func(ctx, stop context.Context, node string, step func(string)) fleet.Result {
			w := want
			w.Node = node
			report, err := target.Probe(stop, c.nodes.shell(), &w)
			if err != nil {
				return failed(err)
			}
			plan, err := target.Remove(&w, report, c.force)
			if err != nil {
				return failed(err)
			}
			return carryOut(ctx, stop, c.nodes.shell(), node, plan, c.dryRun, step)
		}))
	if results == nil {
		return err
	}
	return v.finish(results, err, c.dryRun)
}

// onlyNodes prepares verbs that bring nothing.
func (v *call) onlyNodes(ctx context.Context, n *nodesSettings) (*job, target.Want, error) {
	j, err := v.newJob(ctx, n, v.Args)
	if err != nil {
		return nil, target.Want{}, err
	}
	var daemons []target.Daemon
	for _, d := range j.daemons {
		daemons = append(daemons, target.Daemon{Name: d.Name, Bin: d.Bin})
	}
	want := wantOf(j.nodes[0], inventory.Address{}, daemons)
	return j, want, want.Check()
}
