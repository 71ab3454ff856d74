package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

const program = "clientmountd"

// invocation is one call of the program.
type invocation struct {
	args    []string // without the program and its sub-command
	environ []string
	stdout  io.Writer
	stderr  io.Writer
}

func (v *invocation) sources() config.Sources {
	return config.Sources{Args: v.args, Environ: v.environ}
}

// commands are the words that the first argument may be. Flags alone, or
// nothing, run the daemon.
var commands = map[string]func(*invocation, context.Context) int{
	"version": (*invocation).version,
	"help":    (*invocation).help,
	"config":  (*invocation).config,
}

// elsewhere are words that earlier daemons of this name knew. Whoever types one
// learns what does its work now.
var elsewhere = map[string]string{
	"install": "systemctl enable --now clientmountd",
	"remove":  "systemctl disable --now clientmountd",
	"start":   "systemctl start clientmountd",
	"stop":    "systemctl stop clientmountd",
	"status":  "systemctl status clientmountd",
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	v := &invocation{args: args, environ: environ, stdout: stdout, stderr: stderr}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return v.daemon(ctx)
	}
	command, ok := commands[args[0]]
	if now := elsewhere[args[0]]; now != "" {
		return v.usage(fmt.Sprintf("the command %s is not in this release: the unit comes with the package, use %s", args[0], now))
	}
	if !ok {
		return v.usage(fmt.Sprintf("unknown command %.80q", args[0]))
	}
	v.args = args[1:]
	return command(v, ctx)
}

func (v *invocation) version(context.Context) int {
	fmt.Fprintln(v.stdout, "Version "+version.Version)
	return daemon.ExitOK
}

func (v *invocation) help(context.Context) int {
	if err := config.Usage(v.stdout, config.ClientmountdTable(new(config.Clientmountd))); err != nil {
		return daemon.ExitFailure
	}
	return daemon.ExitOK
}

// config has the three sub-commands that look at the configuration. None of
// them uses the network.
func (v *invocation) config(ctx context.Context) int {
	if len(v.args) == 0 {
		return v.usage("config needs one of: check, dump, default")
	}
	word := v.args[0]
	v.args = v.args[1:]
	table := config.ClientmountdTable(new(config.Clientmountd))
	var err error
	switch word {
	case "check":
		err = config.Check(v.stdout, table, v.sources())
	case "dump":
		var result config.Result
		if result, err = v.load(table); err == nil {
			err = config.Dump(v.stdout, table, result)
		}
	case "default":
		if len(v.args) > 0 {
			return v.usage("config default takes no arguments")
		}
		_, err = io.WriteString(v.stdout, config.DefaultFile(table))
	case "-h", "--help", "help":
		return v.help(ctx)
	default:
		return v.usage(fmt.Sprintf("unknown command %.80q; config knows check, dump, default", "config "+word))
	}
	return v.result(ctx, err)
}

// load is config.Load that allows no words besides the flags.
func (v *invocation) load(table *config.Table) (config.Result, error) {
	result, rest, err := config.Load(table, v.sources())
	if err == nil && len(rest) > 0 {
		err = &usageError{fmt.Sprintf("unexpected argument %.80q", rest[0])}
	}
	return result, err
}

type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// result shows an error the way its kind deserves and returns the exit code: 0
// after -h, 2 for a wrong command line, 1 for anything else.
func (v *invocation) result(ctx context.Context, err error) int {
	flags, words := (*config.UsageError)(nil), (*usageError)(nil)
	switch {
	case err == nil:
		return daemon.ExitOK
	case errors.Is(err, config.ErrHelp):
		return v.help(ctx)
	case errors.As(err, &flags), errors.As(err, &words):
		return v.usage(err.Error())
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(v.stderr, "%s: %s\n", program, line)
	}
	return daemon.ExitFailure
}

func (v *invocation) usage(text string) int {
	fmt.Fprintf(v.stderr, "%s: %s; see %s --help\n", program, text, program)
	return daemon.ExitUsage
}
