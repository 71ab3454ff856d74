// Package daemon has the code that all daemons share: the command line, the start
// from the settings, the log, the limits of the Go runtime, signals, the shutdown, and
// the notifications to the service manager.
//
// It must not know Kubernetes objects, mounts or data movements. An idle process has
// no timer of this package, except for watchdog pings if the service manager expects
// them.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon/oneprocessor"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Program is one daemon.
type Program struct {
	Name          string
	Configuration func() Configuration // returns a new one, without values
	ConfigRefused Event                // of the record about a failed reload
	// Service is the systemd service, for the service verbs. Name and version are
	// set by this package.
	Service systemd.Service
	// Tools has sub-commands that only this program has; nil: none.
	Tools Tools
	// Describe adds the specific fields of this daemon to "status -o json". The error
	// is the result of loading the configuration. It must change nothing, and must
	// work if the daemon is not running.
	Describe func(Configuration, error, *systemd.Status)
}

// Tools are sub-commands that report about the node. They do not start the daemon.
type Tools interface {
	// Commands returns the sub-commands, for the help.
	Commands() []config.Command
	// Has reports whether Run accepts a sub-command. It also accepts one that the help does
	// not show: shells run it to complete command lines.
	Has(name string) bool
	// Run runs a sub-command and returns the exit code. args starts with its name.
	Run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int
}

// Table returns the settings of the program, with all its sub-commands in the synopsis.
func (p *Program) Table() *config.Table { return p.table(p.Configuration()) }

func (p *Program) table(c Configuration) *config.Table {
	t := c.Table()
	if p.Tools != nil {
		t.Synopsis = slices.Insert(t.Synopsis, 1, p.Tools.Commands()...)
	}
	return t
}

// Configuration is a structure with all settings of a daemon. Each setting is bound
// to the field that its consumer reads.
type Configuration interface {
	// Table returns the settings, bound to the structure.
	Table() *config.Table
	// Common returns the settings that all daemons share.
	Common() *Settings
	// Verify finds mistakes that the table cannot find. It uses no network.
	Verify() error
	// Start creates the daemon from the settings. After an error, including a
	// *Refusal, the process exits.
	Start(*Process) (Service, error)
}

// Service is a daemon that is ready to run.
type Service interface {
	// Run works until ctx is done, then lets running steps finish and returns.
	Run(ctx context.Context) error
	// Probe returns nil if the daemon makes progress; the watchdog calls it.
	Probe(ctx context.Context) error
	// Reload applies the settings that may change while the daemon runs.
	Reload(Configuration)
	// ShutdownTimeout returns how long Run waits for running steps.
	ShutdownTimeout() time.Duration
	// Left describes the work that still runs, for the log record about a shutdown
	// that timed out. It must not block.
	Left() string
}

// TokenObserver is a Service that reports the state of the token of the daemon.
type TokenObserver interface {
	// TokenChanged is called with each change. It must not block.
	TokenChanged(kube.TokenState)
}

// Refusal is a reason not to start that has its own kind of log record, and so an
// entry in the message catalogue.
type Refusal struct {
	Event Event
	Text  string
	Hint  string
}

// Error returns the text followed by the hint.
func (r *Refusal) Error() string { return r.Text + ": " + r.Hint }

// Process has the parts of a running daemon that package daemon provides.
// Configuration.Start creates the rest.
type Process struct {
	Log      *slog.Logger
	Notifier *Notifier
	Node     string // name of this node

	invocation *invocation
	settings   Configuration
	loaded     config.Result
	limits     runtimeLimits
	logOut     io.Closer
	service    Service
	client     *kube.Client    // nil: the service uses no API server
	token      kube.TokenState // reported last; of the goroutine of KeepToken
}

// daemon runs the daemon until a signal arrives or Run returns. A reason not to start
// is printed on standard error before anything is started.
func (v *invocation) daemon(ctx context.Context) int {
	p := &Process{invocation: v, settings: v.Configuration()}
	err := p.prepare()
	if refusal, ok := errors.AsType[*Refusal](err); ok {
		p.Notifier.Status(refusal.Text)
		p.Log.Error(refusal.Text, "hint", refusal.Hint, EventID(refusal.Event))
		p.logOut.Close()
		return ExitFailure
	}
	if err != nil {
		return v.result(ctx, err)
	}
	defer p.logOut.Close()
	return runLifecycle(ctx, lifecycle{
		Log: p.Log, Notifier: p.Notifier, Main: p.main, Reload: p.reload, Left: p.service.Left,
		ShutdownTimeout: func() time.Duration { return p.service.ShutdownTimeout() + 5*time.Second },
	})
}

func (p *Process) prepare() (err error) {
	if p.loaded, err = p.invocation.load(p.settings.Table()); err != nil {
		return err
	}
	s := p.settings.Common()
	s.Log.Identifier, s.Log.Writer = p.invocation.Name, p.invocation.stderr
	if p.Log, p.logOut, err = newLogger(s.Log); err != nil {
		return err
	}
	for _, w := range p.loaded.Warnings {
		p.Log.Warn(w)
	}
	s.Runtime.TakenProcs = oneprocessor.Taken
	if p.limits, err = applyRuntime(s.Runtime); err != nil {
		return err
	}
	if p.Node, err = kube.NodeName(s.Node, os.Hostname); err != nil {
		return err
	}
	p.Notifier = newNotifier(p.Log)
	p.service, err = p.settings.Start(p)
	return err
}

// Dial returns a client of the API server. Its errors start with prefix
// (kube.Options.Service). Dial sends no request.
func (p *Process) Dial(prefix string) (*kube.Client, error) {
	o := p.settings.Common().Kubernetes
	o.Service, o.Log = prefix, p.Log
	o.Renewal = p.settings.Common().Renewal(p.invocation.Name, p.Node)
	o.Renewal.Report = p.tokenChanged
	o.UserAgent = fmt.Sprintf("%s/%s (%s)", p.invocation.Name, version.Version, p.Node)
	client, err := kube.Dial(o)
	if err != nil {
		// Scripts match the start of these texts directly after "error: ".
		return nil, hint.Add(err, "the settings are in section [kubernetes] of %s; %s config dump shows those in effect", p.settingsFile(), p.invocation.Name)
	}
	p.client = client
	return client, nil
}

// settingsFile returns the configuration file for hints: the first that was read.
func (p *Process) settingsFile() string {
	if len(p.loaded.Files) > 0 {
		return p.loaded.Files[0]
	}
	return p.settings.Table().File
}

// Started logs that the daemon has started, with these additional attributes.
func (p *Process) Started(e Event, args ...any) {
	p.Log.With("version", version.Version, "node", p.Node).With(args...).
		Info("started", "config", strings.Join(p.loaded.Files, " "), "runtime", p.limits.String(), EventID(e))
}

// ReturnMemory returns memory that an idle daemon does not need to the kernel.
func (p *Process) ReturnMemory() {
	if err := returnMemory(); err != nil {
		p.Log.Debug("cannot return memory to the kernel", "error", err)
	}
}

func (p *Process) main(ctx context.Context) error {
	watchdog, err := newWatchdog(p.Notifier, p.Log)
	if err != nil {
		p.Log.Warn("invalid watchdog settings from the service manager; no pings are sent", "error", err)
	}
	go watchdog.Run(ctx, p.service.Probe)
	if p.client != nil {
		ctx, cancel := context.WithCancel(ctx)
		var token sync.WaitGroup
		token.Go(func() {
			if err := Safely(func() error { p.client.KeepToken(ctx); return nil }); err != nil {
				p.Log.Error("the token is no longer renewed", "error", err, EventID(EventPanic))
			}
		})
		defer token.Wait()
		defer cancel()
	}
	return p.service.Run(ctx)
}

// reload applies the settings that may change while the daemon runs. An invalid file
// changes nothing.
func (p *Process) reload() {
	fresh := p.invocation.Configuration()
	loaded, changed, ignored, err := config.Reload(p.loaded, fresh.Table(), p.invocation.sources())
	if err == nil {
		err = fresh.Verify()
	}
	if err != nil {
		p.Log.Error("the new configuration is invalid; the old one stays in effect", "error", err, EventID(p.invocation.ConfigRefused))
		return
	}
	p.loaded = loaded
	p.settings.Common().Log.Level.Set(fresh.Common().Log.Level.Level())
	p.service.Reload(fresh)
	p.Log.Info("configuration reloaded", "changed", strings.Join(changed, " "), "needs_restart", strings.Join(ignored, " "), EventID(EventReload))
}
