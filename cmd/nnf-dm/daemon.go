package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/command"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/daemon"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/text/hint"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// process is the daemon put together.
type process struct {
	v        *command.Invocation
	cfg      config.Nnfdm
	settings config.Result
	level    *slog.LevelVar
	log      *slog.Logger
	logOut   io.Closer
	notifier *daemon.Notifier
	node     string
	start    func() // says that it has started

	service     *server.Service // nil when simulated
	listener    *unixsocket.Listener
	records     *unixsocket.Records
	connections *unixsocket.Limiter
	idle        *unixsocket.Idle // for the exit
	calm        *unixsocket.Idle // for giving memory back
	quit        chan struct{}
	transport   server.Transport
	shutdown    atomic.Int64 // the time for the shutdown; a reload may change it

	mu          sync.Mutex // for a reload while the daemon begins to serve
	serving     bool
	idleTimeout time.Duration
}

// runDaemon runs until a signal ends it, or until it is idle. What is wrong at
// the start is said in one line on standard error before anything is begun.
func runDaemon(ctx context.Context, v *command.Invocation) int {
	p := &process{v: v, level: new(slog.LevelVar), quit: make(chan struct{}, 1)}
	if err := p.prepare(); err != nil {
		return v.Result(ctx, err)
	}
	defer p.logOut.Close()
	defer p.idle.Stop()
	defer p.calm.Stop()
	defer p.records.Close()
	return daemon.Run(ctx, daemon.Options{
		Log: p.log, Notifier: p.notifier, Main: p.main, Reload: p.reload,
		ShutdownTimeout: func() time.Duration { return p.shutdownTimeout() + 5*time.Second },
		Left:            func() string { return fmt.Sprintf("%d connections", p.listener.Open()) },
	})
}

// calmAfter is how long nobody must have asked for anything, and no transfer been
// followed, before memory is given back: longer than the pause between the polls
// of a client. Connections that are open do not count.
const calmAfter = 5 * time.Second

func (p *process) prepare() error {
	var err error
	if p.settings, err = p.v.Load(config.NnfdmTable(&p.cfg)); err != nil {
		return err
	}
	p.adopt()
	p.log, p.logOut, err = daemon.NewLogger(daemon.LogOptions{Level: p.level, Format: p.cfg.Log.Format, Identifier: program})
	if err != nil {
		return err
	}
	for _, w := range p.settings.Warnings {
		p.log.Warn(w)
	}
	limits, err := daemon.ApplyRuntime(runtimeOf(&p.cfg))
	if err != nil {
		return err
	}
	if p.node, err = kube.NodeName(p.cfg.Node.Name, os.Hostname); err != nil {
		return err
	}
	p.notifier = daemon.NewNotifier(p.log)
	p.idle = unixsocket.NewIdle(0, func() {
		select {
		case p.quit <- struct{}{}:
		default:
		}
	})
	p.calm = unixsocket.NewIdle(calmAfter, func() {
		if err := daemon.ReturnMemory(); err != nil {
			p.log.Debug("could not give memory back", "error", err)
		}
	})
	p.idle.Also(p.calm)
	p.records = server.NewRecords(p.log, float64(p.cfg.Limits.LogRecordsPerSecond), p.cfg.Limits.LogRecordBurst)
	where := "simulated"
	if !p.cfg.Daemon.Simulated {
		client, err := p.dial()
		if err != nil {
			return err
		}
		settings, err := settingsOf(&p.cfg)
		if err != nil {
			return err
		}
		where = client.Address()
		p.service = server.New(server.Options{
			Node: p.node, Rabbit: p.cfg.Node.Rabbit, SystemConfiguration: p.cfg.Node.SystemConfiguration,
			Client: server.Cluster{Client: client}, Settings: settings, Idle: p.idle, Records: p.records, Status: p.status, Log: p.log,
		})
	}
	if err := p.listen(); err != nil {
		return err
	}
	p.transport = server.Transport{
		Listener: p.listener, Check: server.NewSelfCheck(p.listener), Handshake: p.cfg.Limits.HandshakeTime,
		MaxMessage: int(p.cfg.Limits.MessageSize), MaxMemory: p.cfg.Limits.MemoryPerUser, TotalMemory: p.cfg.Limits.Memory,
		Records: p.records, Shutdown: p.shutdownTimeout, Idle: p.idle, Quit: p.quit, Log: p.log,
	}
	files := strings.Join(p.settings.Files, " ")
	p.start = func() {
		p.log.Info("started", "version", version.Version, "node", p.node, "api_server", where, "socket", p.listener.Addr().String(),
			"activated", p.listener.Activated(), "config", files, "runtime", limits.String(), daemon.EventID(server.EventStarted))
	}
	return nil
}

func (p *process) dial() (*kube.Client, error) {
	k := &p.cfg.Kubernetes
	client, err := kube.Dial(kube.Options{
		Host: k.ServiceHost, Port: k.ServicePort, TokenFile: k.TokenFile, CertFile: k.CertFile, Kubeconfig: k.Kubeconfig,
		QPS: float32(k.QPS), Burst: k.Burst, Timeout: k.RequestTimeout, MinWatchTimeout: k.WatchTimeout,
		Service:   "nnf data movement service",
		UserAgent: fmt.Sprintf("%s/%s (%s)", program, version.Version, p.node),
		Strict:    p.cfg.StrictCredentials, Log: p.log,
	})
	if err != nil {
		return nil, hint.Add(err, "the settings are in section [kubernetes] of %s; %s config dump shows those in effect", p.settingsFile(), program)
	}
	return client, nil
}

func (p *process) settingsFile() string {
	if len(p.settings.Files) > 0 {
		return p.settings.Files[0]
	}
	return config.NnfdmTable(new(config.Nnfdm)).File
}

// overLimit is how many connections above its limit a user gets, so that the server can
// answer why it refuses.
const overLimit = 2

func (p *process) listen() error {
	mode, err := config.Permissions(p.cfg.Socket.Mode)
	if err != nil {
		return err
	}
	p.connections = unixsocket.NewLimiter(connectionsOf(&p.cfg))
	p.listener, err = unixsocket.Listen(unixsocket.Options{
		Path: p.cfg.Socket.Path, Mode: mode, Group: p.cfg.Socket.Group, Log: p.log,
		Limiter: p.connections, OverLimit: overLimit, Handshake: p.cfg.Limits.HandshakeTime, HandshakeBytes: preface, Idle: p.idle, Records: p.records,
	})
	return err
}

// preface is what an HTTP/2 client says first (RFC 9113, 3.4).
const preface = 24

// main is what daemon.Run keeps alive.
func (p *process) main(ctx context.Context) error {
	watchdog, err := daemon.NewWatchdog(p.notifier, p.log)
	if err != nil {
		p.log.Warn("the watchdog setting of the service manager is not understood", "error", err)
	}
	// The socket exists: who connects now is served.
	p.serve()
	p.start()
	p.notifier.Ready()
	if p.service == nil {
		p.status("simulated, nothing is copied")
		go watchdog.Run(ctx, p.transport.Check.Probe)
		return server.ServeSimulated(ctx, p.transport)
	}
	p.status("waiting for requests")
	go watchdog.Run(ctx, func(ctx context.Context) error {
		if err := p.service.Probe(ctx); err != nil {
			return err
		}
		return p.transport.Check.Probe(ctx)
	})
	return server.Serve(ctx, p.service, p.transport)
}

// serve begins to count the time of idleness: now, not from a start that took
// long.
func (p *process) serve() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.serving = true
	p.idle.Set(p.idleTimeout)
}

// status is the line of systemctl status.
func (p *process) status(text string) {
	p.notifier.Status(p.listener.Addr().String() + ": " + text)
}

// reload takes over what may change while the daemon runs. A bad file changes
// nothing.
func (p *process) reload() {
	var fresh config.Nnfdm
	settings, changed, ignored, err := config.Reload(p.settings, config.NnfdmTable(&fresh), p.v.Sources())
	var now server.Settings
	if err == nil {
		now, err = settingsOf(&fresh)
	}
	if err != nil {
		p.log.Error("the new configuration is refused, the old one stays in force", "error", err, daemon.EventID(server.EventConfigRefused))
		return
	}
	p.settings, p.cfg = settings, fresh
	p.adopt()
	p.connections.Set(connectionsOf(&p.cfg))
	p.records.Set(float64(p.cfg.Limits.LogRecordsPerSecond), p.cfg.Limits.LogRecordBurst)
	if p.service != nil {
		p.service.SetSettings(now)
	}
	p.log.Info("configuration read again", "changed", strings.Join(changed, " "), "needs_restart", strings.Join(ignored, " "), daemon.EventID(daemon.EventReload))
}

func (p *process) shutdownTimeout() time.Duration { return time.Duration(p.shutdown.Load()) }

func (p *process) adopt() {
	p.shutdown.Store(int64(p.cfg.Daemon.ShutdownTimeout))
	p.mu.Lock()
	if p.idleTimeout = p.cfg.Daemon.IdleTimeout; p.serving {
		p.idle.Set(p.idleTimeout)
	}
	p.mu.Unlock()
	var l slog.Level
	if err := l.UnmarshalText([]byte(p.cfg.Log.Level)); err == nil {
		p.level.Set(l)
	}
}
