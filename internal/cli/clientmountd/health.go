package clientmountd

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/text"
)

// healthSettings has the values of the flags of health.
type healthSettings struct {
	grace     map[mountstate.Cause]*time.Duration
	onlyDrain bool
	limit     time.Duration
}

var healthCommand = &command{
	Name: "health", Short: "check whether the storage on this node is fine",
	Long: `For Slurm's HealthCheckProgram, LBNL Node Health Check and Flux. If the storage is fine, it prints nothing and the exit code is 0. ` +
		`Otherwise it prints one line of at most 200 bytes with the most urgent problem, and the exit code is 1. ` +
		`If the state of the node cannot be read, the exit code is 3 and the error is on standard error.

A node needs a drain if a command for a mount waits in the kernel, if the device of something that is mounted is missing, if something is mounted whose ClientMount no longer exists, ` +
		`or if a record cannot be read. clientmountd recovers from everything else without help: failed attempts, busy mounts, a missing device of a storage that is not mounted yet, a stopped daemon, ` +
		`and an API server that cannot be reached. With --drain-only, other problems are not reported. ` +
		`An invalid ClientMount or storage profile concerns its job and not the node; only the JSON document lists it.

A grace period is how long a condition may last before it is a problem. 0s: no grace period.`,
	Examples: []cli.Example{
		{Comment: "Drain a node of Slurm only if an administrator has to act:", Lines: `reason=$(clientmountd health --drain-only) || [ $? -ne 1 ] ||
    scontrol update nodename="$(hostname -s)" state=drain reason="$reason"`},
	},
	Flags: healthFlags, Run: runHealth,
}

func healthFlags(f *pflag.FlagSet, v *call) {
	f.BoolVar(&v.health.onlyDrain, "drain-only", false, "report only problems that need a drain of the node")
	v.health.grace = map[mountstate.Cause]*time.Duration{}
	for _, c := range mountstate.Causes {
		if !c.Fixed {
			v.health.grace[c.Cause] = f.Duration("grace-"+string(c.Cause), c.Grace, "report after `DURATION` that "+c.Meaning)
		}
	}
	f.DurationVar(&v.health.limit, "timeout", time.Second, "stop reading the state of the node after `DURATION`, with exit code 3")
}

func runHealth(ctx context.Context, v *call) error {
	grace := mountstate.Grace{}
	for cause, d := range v.health.grace {
		if err := notNegative("grace-"+string(cause), *d); err != nil {
			return err
		}
		grace[cause] = *d
	}
	if err := notNegative("timeout", v.health.limit); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, v.health.limit, fmt.Errorf("the state of the node could not be read within %v", v.health.limit))
	defer cancel()
	doc, err := v.readMounts(ctx)
	var health *mountstate.Health
	if err != nil {
		err = &exitError{ExitUnknown, err}
		health = mountstate.UnknownHealth(err, time.Now())
	} else {
		health = mountstate.Evaluate(doc, grace, doc.Time)
	}
	if v.health.onlyDrain {
		health.OnlyDrain()
	}
	if health.Verdict == mountstate.VerdictProblem {
		v.Code = cli.ExitFailed
	}
	var failed error
	switch {
	case v.output == formatJSON:
		failed = text.JSON(v.Stdout, health)
	case health.Line != "":
		_, failed = fmt.Fprintln(v.Stdout, health.Line)
	}
	if failed != nil && err == nil {
		return &exitError{ExitUnknown, failed}
	}
	return err
}
