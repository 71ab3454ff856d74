package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/pflag"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// errUsage marks usage errors.
var errUsage = errors.New("usage")

func usageError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

// streams are the standard streams of a command. Results go to out, everything else to
// err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func (s streams) progress(format string, args ...any) {
	fmt.Fprintf(s.err, "devcluster: "+format+"\n", args...)
}

// command is a sub-command. define adds its flags and returns the function that runs
// after they are parsed.
type command struct {
	name, args, about string
	define            func(*pflag.FlagSet) action
}

type action func(ctx context.Context, s streams, args []string) error

func commands() []command {
	return []command{
		{"up", "--dir D [--crds DIR] [--port N] [--compute NAME]... [--rabbit NAME]... [--new-ca] [--stdin] [--verbose] [-- API-SERVER-FLAG...]", "run a cluster until SIGINT or SIGTERM, or until the parent process exits", defineUp},
		{"join", "--dir D [--port N] [--stdin] [--verbose] [-- API-SERVER-FLAG...]", "run a further API server on the etcd of a running cluster, until SIGINT or SIGTERM, or until the parent process exits", defineJoin},
		{"down", "--dir D [--purge]", "stop the cluster; --purge also deletes its state", defineDown},
		{"apply", "--dir D -f FILE|-", "create objects, or merge the fields into existing objects", defineApply},
		{"get", "--dir D RESOURCE [NS/]NAME [-o yaml|json]", "print an object", defineGet},
		{"patch", "--dir D [--subresource status] RESOURCE [NS/]NAME JSON", "apply a merge patch (a JSON object) or a JSON patch (a JSON array)", definePatch},
		{"delete", "--dir D RESOURCE [NS/]NAME [--wait DURATION]", "delete an object; with --wait, wait until it is gone", defineDelete},
		{"wait", "--dir D RESOURCE [NS/]NAME --for FIELD=VALUE [--timeout DURATION]", "wait until a field has a value, for example status.mounts.0.ready=true", defineWait},
		{"rabbit", "--dir D [--namespace NAME,...] [--map FROM=TO]... [--fault RULE]... [--any-storage] [--parallel N] [--stdin]", "process data movements as a rabbit does, until SIGINT or SIGTERM, or until the parent process exits", defineRabbit},
		{"token", "--dir D --daemon clientmountd|nnf-dm", "replace the token of a daemon and rewrite its credential files", defineToken},
	}
}

// run runs the program and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	s := streams{stdin, stdout, stderr}
	if len(args) == 0 {
		printHelp(stderr)
		return exitUsage
	}
	switch args[0] {
	case "help", "--help", "-h":
		printHelp(stdout)
		return exitOK
	case "version", "--version":
		fmt.Fprintln(stdout, version())
		return exitOK
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, s, args[1:])
		}
	}
	s.progress("unknown command %q; for a list, run devcluster help", args[0])
	return exitUsage
}

func (c command) run(ctx context.Context, s streams, args []string) int {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors and help are printed below
	act := c.define(flags)
	err := flags.Parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprintf(s.out, "devcluster %s %s\n  %s\n\n%s", c.name, c.args, c.about, flags.FlagUsages())
		return exitOK
	case err != nil:
		err = usageError("%v", err)
	default:
		err = act(ctx, s, flags.Args())
	}
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		s.progress("%s: %v; usage: devcluster %s %s", c.name, err, c.name, c.args)
		return exitUsage
	}
	s.progress("%s: %v", c.name, err)
	return exitFailed
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "devcluster runs a Kubernetes API server for tests and demos.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "devcluster %s %s\n    %s\n", c.name, c.args, c.about)
	}
	fmt.Fprint(w, "devcluster help | version\n\n"+
		"RESOURCE is a plural name such as clientmounts, optionally with version and group:\n"+
		"clientmounts.v1alpha6.dataworkflowservices.github.io.\n"+
		"Exit codes: 0 success, 1 failure, 2 usage error.\n")
}
