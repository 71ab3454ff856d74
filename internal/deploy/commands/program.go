package commands

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/compute-daemons/compute-daemons/internal/printable"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Name of the program.
const Name = "nnf-deploy"

// Program is one call of nnf-deploy with what surrounds it.
type Program struct {
	Environ []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Signals <-chan os.Signal // SIGINT, SIGTERM, SIGHUP; may be nil
}

// command is one verb.
type command struct {
	name     string
	args     string // for the synopsis
	short    string
	long     string
	examples []example
	most     int  // arguments; -1: any number
	signals  bool // run looks at the signals itself; otherwise one ends its context
	flags    func(*pflag.FlagSet, *settings)
	run      func(context.Context, *call) error
}

// example is a command line that people may copy.
type example struct{ comment, line string }

// commands in the order of the help; filled in init because help shows it. A verb
// that is added here is in the help, the manual page and the completion.
var commands []*command

func init() {
	commands = []*command{credentialsCommand, versionCommand, completionCommand, helpCommand}
}

func find(name string) *command {
	for _, c := range commands {
		if c.name == name {
			return c
		}
	}
	return nil
}

// call is a verb at work.
type call struct {
	*Program
	settings
	args  []string
	given func(flag string) bool // was it on the command line?
	code  int                    // when run returns no error: for nodes that failed
}

// usageError is a wrong command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// Run does what the arguments say and returns the exit code.
func (p *Program) Run(ctx context.Context, args []string) int {
	v := &call{Program: p, settings: defaults(p.Environ)}
	name, err := v.parse(ctx, args)
	switch u := (*usageError)(nil); {
	case err == nil:
		return v.code
	case errors.Is(err, pflag.ErrHelp):
		return p.help(name)
	case errors.As(err, &u):
		see := Name + " --help"
		if find(name) != nil {
			see = Name + " " + name + " --help"
		}
		v.say("%s; see %s", printable.Line(u.text), see)
		return ExitUsage
	}
	v.explain(err)
	return exitOf(err)
}

// parse reads the command line, runs the verb, and returns its name with the
// error.
func (v *call) parse(ctx context.Context, args []string) (string, error) {
	root := v.flagSet("")
	root.SetInterspersed(false)
	showVersion := root.Bool("version", false, "")
	if err := root.Parse(args); err != nil {
		return "", flagError(err)
	}
	if *showVersion {
		_, err := fmt.Fprintln(v.Stdout, version.Line(Name))
		return "", err
	}
	if root.NArg() == 0 {
		return "", usagef("a command is missing")
	}
	name := root.Arg(0)
	c := find(name)
	if c == nil {
		return "", usagef("unknown command %.80q", name)
	}
	flags := v.flagSet(name)
	if c.flags != nil {
		c.flags(flags, &v.settings)
	}
	if err := flags.Parse(root.Args()[1:]); err != nil {
		return name, flagError(err)
	}
	v.args = flags.Args()
	v.given = func(flag string) bool { return flags.Changed(flag) || root.Changed(flag) }
	if err := v.check(c); err != nil {
		return name, err
	}
	if c.signals {
		return name, c.run(ctx, v)
	}
	ctx, cancel := v.interruptible(ctx)
	defer cancel(nil)
	return name, interrupted(ctx, c.run(ctx, v))
}

func flagError(err error) error {
	if errors.Is(err, pflag.ErrHelp) {
		return err
	}
	return usagef("%v", err)
}

func (v *call) check(c *command) error {
	switch {
	case c.most >= 0 && len(v.args) > c.most:
		return usagef("unexpected argument %.80q", v.args[c.most])
	case !slices.Contains(formats, v.output):
		return usagef("--output is one of %s, not %.80q", strings.Join(formats, ", "), v.output)
	}
	return nil
}

// say writes a line of ours to standard error.
func (v *call) say(format string, args ...any) {
	fmt.Fprintf(v.Stderr, "%s: %s\n", Name, fmt.Sprintf(format, args...))
}

// explain shows an error, made printable.
func (v *call) explain(err error) {
	v.say("%s", printable.Line(err.Error()))
}
