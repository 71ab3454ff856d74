package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/text/usage"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// invocation is one call of a program.
type invocation struct {
	*Program
	args    []string // without the program and its sub-command
	environ []string
	stdout  io.Writer
	stderr  io.Writer
}

// commands are the sub-commands besides the service verbs. Without a sub-command the
// daemon runs.
var commands = map[string]func(*invocation, context.Context) int{
	"version": (*invocation).version,
	"help":    (*invocation).help,
	"config":  (*invocation).config,
}

// Run runs the sub-command or the daemon and returns the exit code.
func (p *Program) Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	v := &invocation{Program: p, args: args, environ: environ, stdout: stdout, stderr: stderr}
	if len(args) == 0 || strings.HasPrefix(args[0], "-") {
		return v.daemon(ctx)
	}
	v.args = args[1:]
	if _, ok := systemd.Verbs[args[0]]; ok {
		return v.verb(ctx, args[0])
	}
	if p.Tools != nil && p.Tools.Has(args[0]) {
		return p.Tools.Run(ctx, args, environ, stdout, stderr)
	}
	command, ok := commands[args[0]]
	if !ok {
		known := slices.AppendSeq(slices.AppendSeq(p.tools(), maps.Keys(commands)), maps.Keys(systemd.Verbs))
		slices.Sort(known)
		return v.result(ctx, usage.Unknown("command", args[0], known))
	}
	return command(v, ctx)
}

// tools returns the names of the tools.
func (p *Program) tools() (names []string) {
	if p.Tools != nil {
		for _, c := range p.Tools.Commands() {
			names = append(names, c.Words)
		}
	}
	return names
}

func (v *invocation) version(context.Context) int {
	if _, err := fmt.Fprintln(v.stdout, "Version "+version.Version); err != nil {
		return ExitFailure
	}
	return ExitOK
}

func (v *invocation) help(context.Context) int {
	if err := config.Usage(v.stdout, v.Table()); err != nil {
		return ExitFailure
	}
	return ExitOK
}

// config runs config check, config dump or config default. None of them uses the
// network.
func (v *invocation) config(ctx context.Context) int {
	if len(v.args) == 0 {
		return v.result(ctx, usage.Errorf("config requires a sub-command: check, dump or default"))
	}
	word := v.args[0]
	v.args = v.args[1:]
	settings := v.Configuration()
	table := settings.Table()
	var err error
	switch word {
	case "check":
		if err = v.verify(settings, table); err == nil {
			err = config.Check(v.stdout, v.Configuration().Table(), v.sources())
		}
	case "dump":
		var result config.Result
		if result, err = v.load(table); err == nil {
			err = config.Dump(v.stdout, table, result)
		}
	case "default":
		if len(v.args) > 0 {
			return v.result(ctx, usage.Errorf("config default takes no arguments"))
		}
		_, err = io.WriteString(v.stdout, config.DefaultFile(table))
	case "-h", "--help", "help":
		return v.help(ctx)
	default:
		err = usage.Unknown("command", "config "+word, []string{"config check", "config dump", "config default"})
	}
	return v.result(ctx, err)
}

// verify finds mistakes that the table of settings cannot find and that would
// otherwise appear only at startup.
func (v *invocation) verify(settings Configuration, table *config.Table) error {
	if _, err := v.load(table); err != nil {
		return err
	}
	if err := settings.Verify(); err != nil {
		return err
	}
	k := &settings.Common().Kubernetes
	return kube.CheckEncoding(k.TokenFile, k.CertFile)
}

// verb runs a service verb. Only install takes arguments: the flags of the daemon. It
// checks them, because a unit with unknown flags would never start.
func (v *invocation) verb(ctx context.Context, word string) int {
	service := v.service()
	if word == "status" {
		format, err := v.output()
		switch {
		case err != nil:
			return v.result(ctx, err)
		case format == "json":
			return service.StatusJSON(ctx, v.stdout, v.stderr)
		}
	}
	rest, err := config.CheckArgs(v.Configuration().Table(), v.args)
	switch {
	case err != nil:
		return v.result(ctx, err)
	case len(rest) > 0:
		return v.result(ctx, usage.Errorf("unexpected argument %.80q", rest[0]))
	case word != "install" && len(v.args) > 0:
		return v.result(ctx, usage.Errorf("%s takes no arguments", word))
	}
	return service.Do(ctx, word, v.args, v.environ, v.stdout, v.stderr)
}

// service returns the service for package systemd.
func (p *Program) service() *systemd.Service {
	s := p.Service
	s.Name, s.Version = p.Name, version.Version
	s.Describe = func(start systemd.Start, status *systemd.Status) {
		settings := p.Configuration()
		_, _, err := config.Load(settings.Table(), config.Sources{Args: start.Args, Environ: start.Environ})
		status.Renewal = renewalStatus(settings.Common(), err)
		p.Describe(settings, err, status)
	}
	return &s
}

func renewalStatus(s *Settings, err error) *systemd.RenewalStatus {
	if err != nil {
		return &systemd.RenewalStatus{Error: "settings: " + err.Error()}
	}
	return &systemd.RenewalStatus{Enabled: s.RenewToken, Directory: s.StateDir}
}

// output removes -o FORMAT from the arguments of status. The default is text.
func (v *invocation) output() (format string, err error) {
	if len(v.args) == 0 {
		return "text", nil
	}
	for _, flag := range []string{"-o", "--output"} {
		if v.args[0] == flag && len(v.args) == 2 {
			format = v.args[1]
		} else if value, ok := strings.CutPrefix(v.args[0], flag+"="); ok && len(v.args) == 1 {
			format = value
		} else if v.args[0] == flag && len(v.args) == 1 {
			return "", usage.Errorf("flag -o needs a value: json or text")
		}
	}
	switch format {
	case "":
		return "text", nil // the caller refuses other arguments
	case "json", "text":
		v.args = nil
		return format, nil
	}
	return "", usage.Errorf("-o is json or text, not %.80q", format)
}

// load is config.Load for arguments that must be flags only.
func (v *invocation) load(table *config.Table) (config.Result, error) {
	result, rest, err := config.Load(table, v.sources())
	if err == nil && len(rest) > 0 {
		err = usage.Errorf("unexpected argument %.80q", rest[0])
	}
	return result, err
}

func (v *invocation) sources() config.Sources {
	return config.Sources{Args: v.args, Environ: v.environ}
}

// result prints err on standard error, with the priority err in the journal, and
// returns the exit code: 0 for nil and -h, 2 for a usage error, 1 for anything else.
func (v *invocation) result(ctx context.Context, err error) int {
	code := ExitFailure
	switch wrong := (*usage.Error)(nil); {
	case err == nil:
		return ExitOK
	case errors.Is(err, config.ErrHelp):
		return v.help(ctx)
	case errors.As(err, &wrong):
		code, err = ExitUsage, hint.Add(err, "see %s --help", v.Name)
	}
	hint.Write(v.stderr, errorPrefix(v.stderr, v.getenv), v.Name, err)
	return code
}

func (v *invocation) getenv(name string) string {
	for _, kv := range v.environ {
		if value, ok := strings.CutPrefix(kv, name+"="); ok {
			return value
		}
	}
	return ""
}
