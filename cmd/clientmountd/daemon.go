package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/clientmount/plan"
	"github.com/compute-daemons/compute-daemons/internal/command"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/daemon/oneprocessor"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// server is the daemon put together.
type server struct {
	v          *command.Invocation
	cfg        config.Clientmountd
	settings   config.Result
	level      *slog.LevelVar
	log        *slog.Logger
	logOut     io.Closer
	notifier   *daemon.Notifier
	client     *kube.Client
	controller *clientmount.Controller
	node       string
}

// daemon runs until a signal ends it. What is wrong at the start is said in one
// line on standard error before anything is begun.
func runDaemon(ctx context.Context, v *command.Invocation) int {
	s := &server{v: v, level: new(slog.LevelVar)}
	if err := s.prepare(); err != nil {
		return s.refuse(ctx, err)
	}
	defer s.logOut.Close()
	return daemon.Run(ctx, daemon.Options{
		Log: s.log, Notifier: s.notifier, Main: s.main, Reload: s.reload,
		ShutdownTimeout: func() time.Duration { return s.controller.ShutdownTimeout() + 5*time.Second },
		Left:            func() string { return s.controller.Running() },
	})
}

func (s *server) prepare() error {
	var err error
	if s.settings, err = s.v.Load(config.ClientmountdTable(&s.cfg)); err != nil {
		return err
	}
	s.setLevel()
	s.log, s.logOut, err = daemon.NewLogger(daemon.LogOptions{Level: s.level, Format: s.cfg.Log.Format, Identifier: program})
	if err != nil {
		return err
	}
	for _, w := range s.settings.Warnings {
		s.log.Warn(w)
	}
	limits, err := daemon.ApplyRuntime(daemon.RuntimeOptions{
		MemLimit: s.cfg.Runtime.GoMemLimit, GOGC: gogc(s.cfg.Runtime.GoGC), MaxProcs: s.cfg.Runtime.GoMaxProcs, TakenProcs: oneprocessor.Taken,
	})
	if err != nil {
		return err
	}
	if s.node, err = kube.NodeName(s.cfg.Node.Name, os.Hostname); err != nil {
		return err
	}
	k := &s.cfg.Kubernetes
	s.client, err = kube.Dial(kube.Options{
		Host: k.ServiceHost, Port: k.ServicePort, TokenFile: k.TokenFile, CertFile: k.CertFile, Kubeconfig: k.Kubeconfig,
		QPS: float32(k.QPS), Burst: k.Burst, Timeout: k.RequestTimeout, MinWatchTimeout: k.WatchTimeout,
		UserAgent: fmt.Sprintf("%s/%s (%s)", program, version.Version, s.node),
		Strict:    s.cfg.StrictCredentials, Log: s.log,
	})
	if err != nil {
		// Scripts know the beginning of these texts: it stays behind "error: ".
		return hint.Add(err, "the settings are in section [kubernetes] of %s; %s config dump shows those in effect", s.settingsFile(), program)
	}
	records, err := clientmount.OpenRecords(s.cfg.Daemon.RuntimeDirectory)
	if err != nil {
		return err
	}
	s.notifier = daemon.NewNotifier(s.log)
	if err := checkNamespace(s.cfg.Mount.Mode, s.cfg.Daemon.MountNamespace, ""); err != nil {
		return err
	}
	s.controller = clientmount.New(clientmount.Options{
		Node: s.node, Client: clientmount.Server{Client: s.client}, Machine: clientmount.NewMachine(s.log),
		Records: records, Limits: limitsOf(&s.cfg), RetryRate: s.client.RetryRate(), Orphans: clientmount.OrphanPolicy(s.cfg.Mount.Orphans),
		Plan: planOf(&s.cfg), ShutdownTimeout: s.cfg.Daemon.ShutdownTimeout,
		Status: s.notifier.Status, Synced: s.notifier.Ready, Log: s.log,
		Idle: func() {
			if err := daemon.ReturnMemory(); err != nil {
				s.log.Debug("could not give memory back", "error", err)
			}
		},
	})
	s.log.Info("started", "version", version.Version, "node", s.node, "api_server", s.client.Address(), "account", s.client.Account(),
		"config", strings.Join(s.settings.Files, " "), "runtime", limits.String(), daemon.EventID(clientmount.EventStarted))
	return nil
}

// settingsFile is where an administrator most likely wants to change something.
func (s *server) settingsFile() string {
	if len(s.settings.Files) > 0 {
		return s.settings.Files[0]
	}
	return config.ClientmountdTable(new(config.Clientmountd)).File
}

// main is what daemon.Run keeps alive.
func (s *server) main(ctx context.Context) error {
	watchdog, err := daemon.NewWatchdog(s.notifier, s.log)
	if err != nil {
		s.log.Warn("the watchdog setting of the service manager is not understood", "error", err)
	}
	go watchdog.Run(ctx, s.controller.Probe)
	follow := make(chan error, 1)
	go func() { follow <- s.controller.Follow(ctx, clientmount.Server{Client: s.client}) }()
	return errors.Join(s.controller.Run(ctx), <-follow)
}

// reload takes over what may change while the daemon runs. A bad file changes
// nothing.
func (s *server) reload() {
	var fresh config.Clientmountd
	settings, changed, ignored, err := config.Reload(s.settings, config.ClientmountdTable(&fresh), s.v.Sources())
	if err != nil {
		s.log.Error("the new configuration is refused, the old one stays in force", "error", err, daemon.EventID(clientmount.EventConfigRefused))
		return
	}
	s.settings, s.cfg = settings, fresh
	s.setLevel()
	s.controller.SetLimits(limitsOf(&s.cfg))
	s.controller.SetShutdownTimeout(s.cfg.Daemon.ShutdownTimeout)
	s.log.Info("configuration read again", "changed", strings.Join(changed, " "), "needs_restart", strings.Join(ignored, " "), daemon.EventID(daemon.EventReload))
}

func (s *server) setLevel() {
	var l slog.Level
	if err := l.UnmarshalText([]byte(s.cfg.Log.Level)); err == nil {
		s.level.Set(l)
	}
}

func limitsOf(c *config.Clientmountd) clientmount.Limits {
	m := &c.Mount
	return clientmount.Limits{
		Command: m.CommandTimeout, Hook: m.HookTimeout, VGWait: m.VGWait, DeviceWait: m.DeviceWait,
		DeviceRetries: m.DeviceRetries, RetryMax: m.RetryMax, Verify: m.VerifyInterval,
	}
}

func planOf(c *config.Clientmountd) plan.Options {
	m := &c.Mount
	return plan.Options{
		Roots: m.Roots, MountOptions: m.Options, ServersFile: m.ServersFile, Mode: m.Mode, MockPath: m.MockPath,
	}
}

func gogc(percent int) string {
	if percent < 0 {
		return "off"
	}
	return strconv.Itoa(percent)
}
