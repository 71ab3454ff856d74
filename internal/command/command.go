// Package command is the command line that the daemons have in common: run, or
// one of the words version, help and config, or a verb of the service.
//
// It must not know what a daemon does.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Program is one daemon's command line.
type Program struct {
	Name   string
	Table  func() *config.Table // bound to a fresh structure
	Daemon func(context.Context, *Invocation) int
	// Verify finds what is wrong with the settings and only the program knows,
	// for config check; nil: nothing. It must not use the network.
	Verify func(*Invocation) error
	// Service is the daemon as systemd knows it, for the verbs.
	Service systemd.Service
}

// Invocation is one call of a program.
type Invocation struct {
	p       *Program
	args    []string // without the program and its sub-command
	environ []string
	stdout  io.Writer
	stderr  io.Writer
}

// Sources are where the settings come from.
func (v *Invocation) Sources() config.Sources {
	return config.Sources{Args: v.args, Environ: v.environ}
}

// commands are the words that the first argument may be. Flags alone, or
// nothing, run the daemon.
var commands = map[string]func(*Invocation, context.Context) int{
	"version": (*Invocation).version,
	"help":    (*Invocation).help,
	"config":  (*Invocation).config,
}

// Run does what the arguments say and returns the exit code.
func (p *Program) Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	v := &Invocation{p: p, args: args, environ: environ, stdout: stdout, stderr: stderr}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return p.Daemon(ctx, v)
	}
	v.args = args[1:]
	if _, ok := systemd.Verbs[args[0]]; ok {
		return v.verb(ctx, args[0])
	}
	command, ok := commands[args[0]]
	if !ok {
		known := slices.AppendSeq(slices.Collect(maps.Keys(commands)), maps.Keys(systemd.Verbs))
		slices.Sort(known)
		return v.Result(ctx, usage.Unknown("command", args[0], known))
	}
	return command(v, ctx)
}

func (v *Invocation) version(context.Context) int {
	if _, err := fmt.Fprintln(v.stdout, "Version "+version.Version); err != nil {
		return daemon.ExitFailure
	}
	return daemon.ExitOK
}

func (v *Invocation) help(context.Context) int {
	if err := config.Usage(v.stdout, v.p.Table()); err != nil {
		return daemon.ExitFailure
	}
	return daemon.ExitOK
}

// config has the three sub-commands that look at the configuration. None of
// them uses the network.
func (v *Invocation) config(ctx context.Context) int {
	if len(v.args) == 0 {
		return v.Result(ctx, usage.Errorf("config needs one of: check, dump, default"))
	}
	word := v.args[0]
	v.args = v.args[1:]
	table := v.p.Table()
	var err error
	switch word {
	case "check":
		if v.p.Verify != nil {
			err = v.p.Verify(v)
		}
		if err == nil {
			err = config.Check(v.stdout, table, v.Sources())
		}
	case "dump":
		var result config.Result
		if result, err = v.Load(table); err == nil {
			err = config.Dump(v.stdout, table, result)
		}
	case "default":
		if len(v.args) > 0 {
			return v.Result(ctx, usage.Errorf("config default takes no arguments"))
		}
		_, err = io.WriteString(v.stdout, config.DefaultFile(table))
	case "-h", "--help", "help":
		return v.help(ctx)
	default:
		err = usage.Unknown("command", "config "+word, []string{"config check", "config dump", "config default"})
	}
	return v.Result(ctx, err)
}

// Load is config.Load that allows no words besides the flags.
func (v *Invocation) Load(table *config.Table) (config.Result, error) {
	result, rest, err := config.Load(table, v.Sources())
	if err == nil && len(rest) > 0 {
		err = usage.Errorf("unexpected argument %.80q", rest[0])
	}
	return result, err
}

// Result prints an error on standard error, red in journalctl, and returns the exit
// code: 0 after -h, 2 for a wrong command line, 1 for anything else.
func (v *Invocation) Result(ctx context.Context, err error) int {
	code := daemon.ExitFailure
	switch wrong := (*usage.Error)(nil); {
	case err == nil:
		return daemon.ExitOK
	case errors.Is(err, config.ErrHelp):
		return v.help(ctx)
	case errors.As(err, &wrong):
		code, err = daemon.ExitUsage, hint.Add(err, "see %s --help", v.p.Name)
	}
	hint.Write(v.stderr, daemon.ErrorPrefix(v.stderr, v.getenv), v.p.Name, err)
	return code
}

func (v *Invocation) getenv(name string) string {
	for _, kv := range v.environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
