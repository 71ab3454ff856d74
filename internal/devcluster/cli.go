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

// errUsage marks errors of the caller's making.
var errUsage = errors.New("usage")

func usageError(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errUsage, fmt.Sprintf(format, args...))
}

// streams are the three that a command may use. Answers go to out, everything
// else to err.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

func (s streams) progress(format string, args ...any) {
	fmt.Fprintf(s.err, "devcluster: "+format+"\n", args...)
}

// command is a word of the command line. Define adds its flags and returns what
// runs once they are parsed.
type command struct {
	name, args, about string
	define            func(*pflag.FlagSet) action
}

type action func(ctx context.Context, s streams, args []string) error

func commands() []command {
	return []command{
		{"up", "--dir D [--crds DIR] [--port N] [--compute NAME]... [--rabbit NAME]... [--new-ca] [--stdin] [--verbose] [-- API-SERVER-FLAG...]", "run a cluster until SIGINT or SIGTERM, or until the parent process ends", defineUp},
		{"down", "--dir D [--purge]", "end the cluster; --purge removes its folder's content", defineDown},
		{"apply", "--dir D -f FILE|-", "create objects or merge fields into existing ones", defineApply},
		{"get", "--dir D RESOURCE [NS/]NAME [-o yaml|json]", "print an object", defineGet},
		{"patch", "--dir D [--subresource status] RESOURCE [NS/]NAME JSON", "merge patch (a JSON object) or JSON patch (a JSON list)", definePatch},
		{"delete", "--dir D RESOURCE [NS/]NAME [--wait DURATION]", "delete an object; --wait until it is gone", defineDelete},
		{"wait", "--dir D RESOURCE [NS/]NAME --for FIELD=VALUE [--timeout DURATION]", "wait for a field, as in status.mounts.0.ready=true", defineWait},
		{"rabbit", "--dir D [--namespace NAME,...] [--map FROM=TO]... [--fault RULE]... [--any-storage] [--parallel N] [--stdin]", "do data movements as a rabbit does, until SIGINT or SIGTERM, or until the parent process ends", defineRabbit},
		{"token", "--dir D --daemon clientmountd|nnf-dm", "give a daemon a new token and rewrite its files", defineToken},
	}
}

// run is the program: it returns the exit code.
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
	s.progress("unknown command %q; devcluster help lists them", args[0])
	return exitUsage
}

func (c command) run(ctx context.Context, s streams, args []string) int {
	flags := pflag.NewFlagSet(c.name, pflag.ContinueOnError)
	flags.SetOutput(io.Discard) // we print errors and help ourselves
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
		s.progress("%s: %v; want devcluster %s %s", c.name, err, c.name, c.args)
		return exitUsage
	}
	s.progress("%s: %v", c.name, err)
	return exitFailed
}

func printHelp(w io.Writer) {
	fmt.Fprint(w, "devcluster runs a Kubernetes API server for tests and demonstrations.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "devcluster %s %s\n    %s\n", c.name, c.args, c.about)
	}
	fmt.Fprint(w, "devcluster help | version\n\n"+
		"RESOURCE is a name such as clientmounts, or with version and group:\n"+
		"clientmounts.v1alpha6.dataworkflowservices.github.io.\n"+
		"Exit codes: 0 done, 1 failed, 2 wrong usage.\n")
}
