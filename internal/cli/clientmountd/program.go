// Package clientmountd has the sub-commands of clientmountd that report about the node: one file per
// sub-command, with its flags and help. This file has the list of sub-commands and the exit codes.
//
// The commands must work while the daemon, the API server or file systems do not answer: they read
// records, /proc and the journal, and touch no path at or below a mount.
package clientmountd

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/cli"
	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/mountstate"
	"github.com/compute-daemons/compute-daemons/internal/node"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
)

// Program returns clientmountd: the daemon and its sub-commands.
func Program() *daemon.Program {
	p := clientmount.Program()
	p.Tools = tools{}
	return p
}

// Name of the program.
const Name = "clientmountd"

// Tools describes the sub-commands of this package.
var Tools = cli.Program[*call]{
	Name:     Name,
	About:    "Reports about the mounts of this compute node.",
	New:      newCall,
	Flags:    commonFlags,
	Check:    func(v *call) error { return v.CheckFormat(v.output, formats) },
	Commands: []*command{mountsCommand, healthCommand, waitCommand, timelineCommand, doctorCommand},
	Exits: []cli.Exit{
		{Code: cli.ExitOK, Meaning: "success; with health, the storage on the node is fine"},
		{Code: cli.ExitFailed, Meaning: "failure; with health and doctor, there is a problem; with wait, the ClientMount was refused"},
		{Code: cli.ExitUsage, Meaning: "usage error"},
		{Code: ExitUnknown, Meaning: "health and wait: the state of the node cannot be read"},
		{Code: ExitTimeout, Meaning: "wait: --timeout has expired"},
		{Code: cli.ExitSignal + 2, Meaning: "ended by Ctrl-C"},
		{Code: cli.ExitSignal + 15, Meaning: "ended by SIGTERM"},
	},
	ExitOf: exitOf,
	Part:   true,
}

// Exit codes, in addition to those of every program. They are documented, and their meaning never
// changes.
const (
	ExitUnknown = 3
	ExitTimeout = 5
)

// exitError is an error with an exit code.
type exitError struct {
	code int
	error
}

func (e *exitError) Unwrap() error { return e.error }

func exitOf(err error) int {
	if e := (*exitError)(nil); errors.As(err, &e) {
		return e.code
	}
	return cli.ExitOf(err)
}

// notNegative returns a usage error if the value of a flag is negative.
func notNegative(flag string, d time.Duration) error {
	if d < 0 {
		return usage.Errorf("--%s must not be negative", flag)
	}
	return nil
}

// tools implements daemon.Tools.
type tools struct{}

func (tools) Commands() (list []config.Command) {
	for _, c := range Tools.Commands {
		list = append(list, config.Command{Words: c.Name, Meaning: c.Short})
	}
	return list
}

func (tools) Has(name string) bool {
	return name == cli.CompleteCommand || slices.ContainsFunc(Tools.Commands, func(c *command) bool { return c.Name == name })
}

func (tools) Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	process := cli.ThisProcess()
	process.Environ, process.Stdout, process.Stderr = environ, stdout, stderr
	return Tools.Run(ctx, process, args)
}

type command = cli.Command[*call]

// call is one run of a sub-command.
type call struct {
	*cli.Call
	settings
}

// settings has the values of the flags.
type settings struct {
	config, directory string
	output            string

	mounts   mountsSettings
	health   healthSettings
	wait     waitSettings
	doctor   doctorSettings
	timeline timelineSettings
}

const (
	formatText  = "text"
	formatJSON  = "json"
	formatTrace = "trace"
)

var formats = []string{formatText, formatJSON}

func newCall(c *cli.Call) *call { return &call{Call: c, settings: settings{output: formatText}} }

func commonFlags(f *pflag.FlagSet, v *call) {
	f.StringVarP(&v.output, "output", "o", v.output, "print the output as `FORMAT`: text or json")
	cli.Words(f, "output", formats...)
	f.StringVar(&v.config, "config", v.config, "read the configuration of the daemon from `FILE`, not from its default path")
	f.StringVar(&v.directory, "runtime-directory", v.directory, "read the records in `DIR`; by default, the directory of the configuration")
}

// runtimeDirectory returns the runtime directory of the daemon. If its configuration is invalid, it
// prints a warning and uses the default, because the records matter most when something is wrong.
func (v *call) runtimeDirectory() string {
	if v.directory != "" {
		return v.directory
	}
	c := new(clientmount.Configuration)
	table := c.Table()
	var args []string
	if v.config != "" {
		args = []string{"--config", v.config}
	}
	if _, _, err := config.Load(table, config.Sources{Args: args, Environ: v.Environ}); err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		directory := table.Lookup("daemon.runtime_directory").Default
		v.Say("warning: using the records in %s, because the configuration cannot be loaded: %s", directory, first)
		return directory
	}
	return c.RuntimeDirectory
}

// euid is the effective user ID. Tests replace it.
var euid = os.Geteuid

// needRoot returns an error unless root runs the command, for what only root can do.
func needRoot(what string) error {
	if euid() != 0 {
		return hint.Add(errors.New("only root can "+what), "run the command as root")
	}
	return nil
}

const readRecords = "read the records of mounts"

// readMounts returns the mounts of this node.
func (v *call) readMounts(ctx context.Context) (*mountstate.Mounts, error) {
	if err := needRoot(readRecords); err != nil {
		return nil, err
	}
	v.directory = v.runtimeDirectory()
	return readMounts(ctx, v.directory)
}

// read reads the records below a runtime directory. Tests replace it.
var read = func(directory string) (*mountstate.Mounts, error) {
	return clientmount.ReadMounts(directory, new(node.Node))
}

// readMounts returns the mounts in the records below a runtime directory, or the cause of ctx when it
// ends: reading the command line of a process can hang if the process does.
func readMounts(ctx context.Context, directory string) (*mountstate.Mounts, error) {
	type result struct {
		doc *mountstate.Mounts
		err error
	}
	results, read := make(chan result, 1), read
	go func() {
		doc, err := read(directory)
		results <- result{doc, err}
	}()
	select {
	case r := <-results:
		return r.doc, r.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
