// Package dmctl is the command line of nnf-dmctl: each sub-command has a file with its
// flags and help; this file has the table of commands and the exit codes.
//
// It must not know the daemon's protocol.
package dmctl

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Program is the program nnf-dmctl.
var Program = cli.Program[*call]{
	Name:     Name,
	About:    "Copies the data of a job from rabbit storage to a global file system.",
	New:      newCall,
	Flags:    commonFlags,
	Check:    checkCommon,
	Commands: []*command{copyCommand, statusCommand, waitCommand, cancelCommand, listCommand, deleteCommand, doctorCommand, versionCommand},
	Environment: []cli.Variable{
		{Name: "DW_WORKFLOW_NAME", Meaning: "name of the workflow; every job sets it"},
		{Name: "DW_WORKFLOW_NAMESPACE", Meaning: "namespace of the workflow; every job sets it; if unset, default"},
		{Name: "DW_JOB_*", Meaning: "paths of the storage of the job, which doctor compares with its mounts"},
		{Name: "DW_PERSISTENT_*", Meaning: "the same for persistent storage"},
		{Name: "NNF_DM_SOCKET", Meaning: "socket of the daemon; if unset, " + client.DefaultSocket},
		{Name: "TERM", Meaning: "type of the terminal; with dumb, there is no progress bar"},
	},
	Exits:  exits,
	ExitOf: exitOf,
}

// Name of the program.
const Name = "nnf-dmctl"

type command = cli.Command[*call]

// call is one run of a sub-command.
type call struct {
	*cli.Call
	settings
	client *client.Client
}

// withDaemon returns run with an open client.
func withDaemon(run func(context.Context, *call) error) func(context.Context, *call) error {
	return func(ctx context.Context, v *call) (err error) {
		if v.client, err = client.Open(client.Options{Socket: v.socket, Workflow: v.workflow, Namespace: v.namespace}); err != nil {
			return err
		}
		defer v.client.Close()
		return run(ctx, v)
	}
}

// withIDs is withDaemon for a command whose arguments are ids. An empty id would mean
// all copies of the workflow.
func withIDs(run func(context.Context, *call) error) func(context.Context, *call) error {
	return func(ctx context.Context, v *call) error {
		if slices.Contains(v.Args, "") {
			return usage.Errorf("an ID must not be empty")
		}
		return withDaemon(run)(ctx, v)
	}
}

// ids is the command line that completes ids.
const ids = "list --quiet --output text"

// settings are the values from the environment and the flags.
type settings struct {
	socket, workflow, namespace string
	output                      string
	quiet                       bool

	wait    bool
	timeout time.Duration
	copy    copySettings
}

const (
	formatText = "text"
	formatJSON = "json"
)

var formats = []string{formatText, formatJSON}

func newCall(c *cli.Call) *call {
	s := settings{socket: c.Getenv("NNF_DM_SOCKET"), workflow: c.Getenv("DW_WORKFLOW_NAME"), namespace: c.Getenv("DW_WORKFLOW_NAMESPACE"), output: formatText}
	if s.socket == "" {
		s.socket = client.DefaultSocket
	}
	if s.namespace == "" {
		s.namespace = "default"
	}
	return &call{Call: c, settings: s}
}

func commonFlags(f *pflag.FlagSet, v *call) {
	f.StringVarP(&v.workflow, "workflow", "w", v.workflow, "act on the workflow `NAME`")
	f.StringVarP(&v.namespace, "namespace", "n", v.namespace, "use `NAMESPACE`, the namespace of the workflow")
	f.StringVar(&v.socket, "socket", v.socket, "connect to the daemon's socket at `PATH`")
	f.StringVarP(&v.output, "output", "o", v.output, "print the output as `FORMAT`: text or json")
	cli.Words(f, "output", formats...)
	f.BoolVarP(&v.quiet, "quiet", "q", v.quiet, "print no progress and no successful copies; with list, print only the ids; with doctor, only what is not OK")
}

func waitFlags(f *pflag.FlagSet, v *call) {
	f.DurationVar(&v.timeout, "timeout", 0, "wait no longer than `DURATION`, for example 90s or 2h")
}

func checkCommon(v *call) error {
	switch {
	case !slices.Contains(formats, v.output):
		return usage.Errorf("--output must be %s, not %.80q", strings.Join(formats, " or "), v.output)
	case v.timeout < 0:
		return usage.Errorf("--timeout cannot be negative")
	}
	return nil
}

// Exit codes, in addition to those of every program. They are documented, and their
// meaning never changes.
const (
	ExitOK          = cli.ExitOK
	ExitFailed      = cli.ExitFailed
	ExitUsage       = cli.ExitUsage
	ExitNotFound    = 3
	ExitCancelled   = 4
	ExitTimeout     = 5
	ExitDenied      = 6
	ExitUnreachable = 7
)

// exits documents the exit codes.
var exits = []cli.Exit{
	{Code: ExitOK, Meaning: "success; with --wait, the copies have succeeded"},
	{Code: ExitFailed, Meaning: "the copy, or the request for it, has failed; with doctor, a check has failed"},
	{Code: ExitUsage, Meaning: "usage error, or the daemon refuses a path or an option"},
	{Code: ExitNotFound, Meaning: "the workflow or the copy does not exist, or belongs to another user"},
	{Code: ExitCancelled, Meaning: "the copy was cancelled"},
	{Code: ExitTimeout, Meaning: "--timeout has expired; the copy continues"},
	{Code: ExitDenied, Meaning: "permission denied"},
	{Code: ExitUnreachable, Meaning: "the daemon cannot be reached, or it cannot reach the rabbit or the API server"},
	{Code: cli.ExitSignal + 1, Meaning: "detached by SIGHUP; the copy continues"},
	{Code: cli.ExitSignal + 2, Meaning: "detached by Ctrl-C; the copy continues"},
	{Code: cli.ExitSignal + 15, Meaning: "detached by SIGTERM; the copy continues"},
}

var exitOfKind = map[client.Kind]int{
	client.Failed: ExitFailed, client.Invalid: ExitUsage, client.NotFound: ExitNotFound,
	client.Denied: ExitDenied, client.TimedOut: ExitTimeout, client.Interrupted: ExitFailed, client.Unreachable: ExitUnreachable,
}

// exitOf returns the exit code for an error.
func exitOf(err error) int {
	if e := (*client.Error)(nil); errors.As(err, &e) {
		return exitOfKind[e.Kind]
	}
	return cli.ExitOf(err)
}

var exitOfResult = map[client.Result]int{
	client.Failure: ExitFailed, client.Refused: ExitFailed, client.Cancelled: ExitCancelled, client.Deleted: ExitNotFound,
}

// exitOfAll returns the exit code for copies: that of a failed copy, else that of a
// deleted one, else that of a cancelled one. A copy that has not ended is treated as
// successful.
func exitOfAll(all []client.Movement) int {
	worst := ExitOK
	for _, m := range all {
		code := exitOfResult[m.Result]
		if code != ExitOK && (worst == ExitOK || code < worst) {
			worst = code
		}
	}
	return worst
}
