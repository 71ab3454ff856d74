// Package daemon is the part that all daemons have in common: the command line, the
// start from the settings, the log, the limits of the Go runtime, signals, the
// shutdown, and the notifications to the service manager.
//
// It must not know Kubernetes objects, mounts or data movements. Nothing in it
// ticks: an idle process has no timer of this package, except one when the service
// manager asks for watchdog pings.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon/oneprocessor"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/systemd"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// Program is one daemon: what main runs.
type Program struct {
	Name          string
	Configuration func() Configuration // makes a new one, without values
	ConfigRefused Event                // of the record about a reload that is refused
	// Service is the daemon as systemd knows it, for the verbs; the program's name
	// and version are added.
	Service systemd.Service
	// Describe adds to "status -o json" what only this daemon knows. The error is
	// that of loading the configuration. It must change nothing and not need the
	// daemon to run.
	Describe func(Configuration, error, *systemd.Status)
}

// Configuration is a structure with all settings of a daemon. A setting is bound to
// the field that its user reads.
type Configuration interface {
	// Table returns the settings, bound to the structure.
	Table() *config.Table
	// Common returns the settings that every daemon has.
	Common() *Settings
	// Verify finds mistakes that the table cannot find. It uses no network.
	Verify() error
	// Start builds the daemon from the settings. On an error, a *Refusal or any
	// other, the process ends.
	Start(*Process) (Service, error)
}

// Service is a daemon that has been built.
type Service interface {
	// Run works until ctx ends, then lets running steps finish and returns.
	Run(ctx context.Context) error
	// Probe returns nil if the daemon makes progress; the watchdog calls it.
	Probe(ctx context.Context) error
	// Reload takes over settings that may change while the daemon runs.
	Reload(Configuration)
	// ShutdownTimeout is how long Run lets running steps take.
	ShutdownTimeout() time.Duration
	// Left describes the work that still runs, for the message when the shutdown took
	// too long. It must not block.
	Left() string
}

// Refusal is a reason not to start that has a record of its own kind, and so an
// explanation in the journal.
type Refusal struct {
	Event Event
	Text  string
	Hint  string
}

// Error is the text with the hint behind it.
func (r *Refusal) Error() string { return r.Text + ": " + r.Hint }

// Process is a running daemon, as far as package daemon has started it: Start of a
// Configuration builds the rest with it.
type Process struct {
	Log      *slog.Logger
	Notifier *Notifier
	Node     string // this node's name

	invocation *invocation
	settings   Configuration
	loaded     config.Result
	limits     runtimeLimits
	logOut     io.Closer
	service    Service
}

// daemon runs the daemon until a signal ends it, or until it ends by itself. A
// reason not to start is printed on standard error before anything is started.
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

// Dial makes the client of the API server; prefix stands in front of its errors
// (kube.Options.Service). No request is sent.
func (p *Process) Dial(prefix string) (*kube.Client, error) {
	o := p.settings.Common().Kubernetes
	o.Service, o.Log = prefix, p.Log
	o.UserAgent = fmt.Sprintf("%s/%s (%s)", p.invocation.Name, version.Version, p.Node)
	client, err := kube.Dial(o)
	if err != nil {
		// Scripts know the beginning of these texts: it stays behind "error: ".
		return nil, hint.Add(err, "the settings are in section [kubernetes] of %s; %s config dump shows those in effect", p.settingsFile(), p.invocation.Name)
	}
	return client, nil
}

// settingsFile is the file that an administrator most likely wants to change.
func (p *Process) settingsFile() string {
	if len(p.loaded.Files) > 0 {
		return p.loaded.Files[0]
	}
	return p.settings.Table().File
}

// Started logs that the daemon has started, with attributes of its own.
func (p *Process) Started(e Event, args ...any) {
	p.Log.With("version", version.Version, "node", p.Node).With(args...).
		Info("started", "config", strings.Join(p.loaded.Files, " "), "runtime", p.limits.String(), EventID(e))
}

// ReturnMemory gives back the memory that an idle daemon does not need.
func (p *Process) ReturnMemory() {
	if err := returnMemory(); err != nil {
		p.Log.Debug("could not give memory back", "error", err)
	}
}

func (p *Process) main(ctx context.Context) error {
	watchdog, err := newWatchdog(p.Notifier, p.Log)
	if err != nil {
		p.Log.Warn("the watchdog setting of the service manager is not understood", "error", err)
	}
	go watchdog.Run(ctx, p.service.Probe)
	return p.service.Run(ctx)
}

// reload takes over what may change while the daemon runs. A bad file changes
// nothing.
func (p *Process) reload() {
	fresh := p.invocation.Configuration()
	loaded, changed, ignored, err := config.Reload(p.loaded, fresh.Table(), p.invocation.sources())
	if err == nil {
		err = fresh.Verify()
	}
	if err != nil {
		p.Log.Error("the new configuration is refused, the old one stays in force", "error", err, EventID(p.invocation.ConfigRefused))
		return
	}
	p.loaded = loaded
	p.settings.Common().Log.Level.Set(fresh.Common().Log.Level.Level())
	p.service.Reload(fresh)
	p.Log.Info("configuration read again", "changed", strings.Join(changed, " "), "needs_restart", strings.Join(ignored, " "), EventID(EventReload))
}
