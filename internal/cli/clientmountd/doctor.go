package clientmountd

import (
	"context"
	"fmt"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/doctor"
	"github.com/compute-daemons/compute-daemons/internal/text"
	"github.com/compute-daemons/compute-daemons/internal/text/checklist"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

type doctorSettings struct {
	offline bool
	bundle  string
}

var doctorCommand = &command{
	Name: "doctor", Short: "check everything that clientmountd needs on this node",
	Long: `The command checks the configuration, the unit, the credentials, the connection to
the API server, what nnf-dm has recorded about the renewal of its token, LVM, the
modules and namespaces of the storage, and what earlier mounts have left behind. Each
line is OK, WARN, FAIL or SKIP, and the hint below it is the next action. The exit
code is 1 if a check fails.

The command changes nothing, touches no mount, and takes less than 10 seconds even
if the daemon, the API server, systemd or LVM do not answer. It needs root.

With --bundle, it also writes an archive for a support case: the results, the output
of mounts, health and timeline, the configuration, unit, log and records of the
daemon, and the state of the storage. Tokens, keys and the values of environment
variables are removed, and only root can read the archive. Check it before you send
it.`,
	Examples: []cli.Example{
		{Comment: "Check this node, then only show the problems:", Lines: "clientmountd doctor\nclientmountd doctor -o json | jq '.checks[] | select(.state == \"fail\")'"},
		{Comment: "Collect what a support case needs:", Lines: "clientmountd doctor --bundle /root/$(hostname).tar.gz"},
	},
	Flags: doctorFlags, Run: runDoctor,
}

func doctorFlags(f *pflag.FlagSet, v *call) {
	f.BoolVar(&v.doctor.offline, "offline", v.doctor.offline, "skip the checks that use the network")
	f.StringVar(&v.doctor.bundle, "bundle", v.doctor.bundle, "also write a support bundle to the new `FILE`, a gzip-compressed tar archive")
}

func runDoctor(ctx context.Context, v *call) error {
	if err := cli.CheckFile("bundle", v.doctor.bundle); err != nil {
		return err
	}
	if err := needRoot("check the node"); err != nil {
		return err
	}
	ctx, cancel := v.Interruptible(ctx, "")
	defer cancel(nil)
	o := doctor.Options{
		Service: clientmount.Program().Service, Environ: v.Environ, Config: v.config, Directory: v.directory, Offline: v.doctor.offline,
	}
	o.Service.Name, o.Service.Version = Name, version.Version
	var list []checklist.Check
	var parts []doctor.Part
	var err error
	if v.doctor.bundle == "" {
		list = doctor.Run(ctx, o)
	} else {
		list, parts, err = doctor.Bundle(ctx, o, v.doctor.bundle)
	}
	if ctx.Err() != nil {
		return cli.Interrupted(ctx, ctx.Err())
	}
	if err != nil {
		return err
	}
	if checklist.Failed(list) {
		v.Code = cli.ExitFailed
	}
	if v.output == formatJSON {
		err = checklist.JSON(v.Stdout, Name, list)
	} else {
		err = checklist.Checks(v.Stdout, list)
	}
	if err == nil && v.doctor.bundle != "" {
		v.showParts(parts)
	}
	return err
}

// showParts lists the contents of the bundle, for the administrator who checks them.
func (v *call) showParts(parts []doctor.Part) {
	for _, p := range parts {
		line := fmt.Sprintf("%8d  %s", p.Bytes, p.Name)
		if p.Note != "" {
			line += "  [" + p.Note + "]"
		}
		v.Say("%s", text.Line(line))
	}
	v.Say("%s has these %d files; only root can read it, and secrets are removed", v.doctor.bundle, len(parts))
}
