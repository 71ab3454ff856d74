// Package deploy has the command line of nnf-deploy: one file per sub-command, with its flags
// and help. This file has the list of sub-commands and the exit codes.
//
// It must not depend on how nodes are changed or credentials are fetched.
package deploy

import (
	"net/http"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
)

// Program describes nnf-deploy.
var Program = cli.Program[*call]{
	Name:     Name,
	About:    "Installs clientmountd and nnf-dm on every compute node of a system, from one host.",
	New:      func(c *cli.Call) *call { return &call{Call: c, settings: settings{output: formatText}} },
	Flags:    commonFlags,
	Check:    func(v *call) error { return v.CheckFormat(v.output, formats) },
	Commands: []*command{credentialsCommand, doctorCommand, healthCommand, installCommand, statusCommand, timelineCommand, uninstallCommand, versionCommand},
	Environment: []cli.Variable{
		{Name: "KUBECONFIG", Meaning: "kubeconfig files, as for kubectl"},
		{Name: "HOME", Meaning: "home directory; ~/.kube/config is used if KUBECONFIG is not set"},
		{Name: "HTTPS_PROXY, NO_PROXY", Meaning: "proxy for connections to the API server, and the addresses that are contacted directly"},
	},
	Exits: []cli.Exit{
		{Code: cli.ExitOK, Meaning: "success, on every node"},
		{Code: cli.ExitFailed, Meaning: "failure, on one or more nodes"},
		{Code: cli.ExitUsage, Meaning: "usage error; nothing was done"},
		{Code: cli.ExitSignal + 1, Meaning: "ended by SIGHUP"},
		{Code: cli.ExitSignal + 2, Meaning: "ended by Ctrl-C"},
		{Code: cli.ExitSignal + 15, Meaning: "ended by SIGTERM"},
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

// settings has the values of the flags. The flags of a sub-command are in a separate struct.
type settings struct {
	kubeconfig, context string
	output              string

	wrapTransport func(http.RoundTripper) http.RoundTripper // replaces the network to the API server in tests

	credentials credentialsSettings
	doctor      doctorSettings
	health      healthSettings
	install     installSettings
	status      statusSettings
	timeline    timelineSettings
	uninstall   uninstallSettings
}

const (
	formatText  = "text"
	formatJSON  = "json"
	formatTrace = "trace"
)

var formats = []string{formatText, formatJSON}

func commonFlags(f *pflag.FlagSet, v *call) {
	f.StringVar(&v.kubeconfig, "kubeconfig", v.kubeconfig, "use the kubeconfig `FILE`; by default, the one that kubectl uses")
	f.StringVar(&v.context, "context", v.context, "use the context `NAME` of the kubeconfig; by default, the current one")
	f.StringVarP(&v.output, "output", "o", v.output, "print the output as `FORMAT`: text or json")
	cli.Words(f, "output", formats...)
}
