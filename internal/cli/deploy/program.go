// Package deploy is the command line of nnf-deploy: one file per sub-command, with its
// flags and help, and in this file the table of them and the exit codes.
//
// It must not know how a node is changed or how credentials are fetched.
package deploy

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Program is nnf-deploy.
var Program = cli.Program[*call]{
	Name:     Name,
	About:    "Installs clientmountd and nnf-dm on every compute node of a system, from one host.",
	New:      func(c *cli.Call) *call { return &call{Call: c, settings: settings{output: formatText}} },
	Flags:    commonFlags,
	Check:    checkCommon,
	Commands: []*command{credentialsCommand, installCommand, statusCommand, uninstallCommand, versionCommand},
	Environment: []cli.Variable{
		{Name: "KUBECONFIG", Meaning: "kubeconfig files, as for kubectl"},
		{Name: "HOME", Meaning: "directory of .kube/config, which is used otherwise"},
		{Name: "HTTPS_PROXY, NO_PROXY", Meaning: "proxy for connections to the API server, and the addresses that are contacted directly"},
	},
	Exits: []cli.Exit{
		{Code: cli.ExitOK, Meaning: "success, on every node"},
		{Code: cli.ExitFailed, Meaning: "failure, on one or more nodes; the messages say what failed and why"},
		{Code: cli.ExitUsage, Meaning: "the command line is wrong; nothing was done"},
		{Code: cli.ExitSignal + 2, Meaning: "ended by Ctrl-C, 143 by SIGTERM"},
	},
}

// Name of the program.
const Name = "nnf-deploy"

type command = cli.Command[*call]

// call is one run of a sub-command.
type call struct {
	*cli.Call
	settings
}

// settings are the values of the flags. Those of a command are in a struct of its own.
type settings struct {
	kubeconfig, context string
	output              string

	credentials credentialsSettings
	install     installSettings
	status      statusSettings
	uninstall   uninstallSettings
}

const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

func commonFlags(f *pflag.FlagSet, v *call) {
	f.StringVar(&v.kubeconfig, "kubeconfig", v.kubeconfig, "kubeconfig `FILE` for the cluster; otherwise as for kubectl")
	f.StringVar(&v.context, "context", v.context, "`NAME` of its context to use; otherwise the current one")
	f.StringVarP(&v.output, "output", "o", v.output, "`FORMAT` of the output: text or json")
	cli.Words(f, "output", formats...)
}

func checkCommon(v *call) error {
	if !slices.Contains(formats, v.output) {
		return usage.Errorf("--output is one of %s, not %.80q", strings.Join(formats, ", "), v.output)
	}
	return nil
}
