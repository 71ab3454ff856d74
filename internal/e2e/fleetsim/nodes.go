package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/clientmount"
	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
)

// simulated is one compute node. Its machine and its directory stay while its daemon is
// stopped.
type simulated struct {
	name    string // also its namespace
	dir     string // runtime directory, and the token
	machine machine
	mounts  int      // that the jobs so far must have made
	daemon  *running // nil: stopped
}

// running is the part of clientmountd that a simulated node runs: the controller with its
// API client.
type running struct {
	*traffic
	stop    context.CancelFunc
	done    chan error
	started time.Time
	synced  chan struct{} // closed when the list of objects is complete
	ready   time.Time     // when that was
}

// fleet is all simulated nodes.
type fleet struct {
	nodes     []*simulated
	server    lab.API
	errors    errorLog
	reference *reference // runs the daemons; nil: this process does
}

// newFleet creates the directories and tokens of n nodes below dir.
func newFleet(n int, dir string, c *lab.Cluster) (*fleet, error) {
	f := &fleet{server: c.API()}
	token, err := os.ReadFile(c.TokenFile())
	if err != nil {
		return nil, err
	}
	for i := range n {
		s := &simulated{name: fmt.Sprintf("node-%05d", i)}
		s.dir = filepath.Join(dir, s.name)
		if err := os.Mkdir(s.dir, 0o700); err != nil {
			return nil, err
		}
		if err := s.setToken(token); err != nil {
			return nil, err
		}
		f.nodes = append(f.nodes, s)
	}
	return f, nil
}

func (s *simulated) tokenFile() string { return filepath.Join(s.dir, "token") }
func (s *simulated) runtime() string   { return filepath.Join(s.dir, "run") }

// setToken replaces the token of the node, as nnf-deploy does.
func (s *simulated) setToken(token []byte) error {
	next := s.tokenFile() + ".next"
	if err := os.WriteFile(next, token, 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.tokenFile())
}

// start starts the daemon of a node, with the default settings of clientmountd.
func (f *fleet) start(s *simulated) error {
	if f.reference != nil {
		return f.reference.start(s)
	}
	host, port, err := net.SplitHostPort(f.server.Address)
	if err != nil {
		return err
	}
	var settings clientmount.Configuration
	if _, _, err := config.Load(settings.Table(), config.Sources{Args: []string{
		"--config=/dev/null", "--node-name=" + s.name, "--runtime-directory=" + s.runtime(),
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + s.tokenFile(), "--service-cert-file=" + f.server.Cert,
	}}); err != nil {
		return err
	}
	r := &running{traffic: newTraffic(), done: make(chan error, 1), started: time.Now(), synced: make(chan struct{})}
	k, log := settings.Kubernetes, slog.New(&f.errors)
	k.UserAgent, k.Log, k.WrapTransport, k.WrapConn = "fleetsim ("+s.name+")", log, r.wrap, r.wrapConn
	client, err := kube.Dial(k)
	if err != nil {
		return err
	}
	o := settings.Controller
	if o.Records, err = clientmount.OpenRecords(settings.RuntimeDirectory); err != nil {
		return err
	}
	o.Records.KeepHistory(o.History)
	o.Node, o.Client, o.Host, o.RetryRate, o.Log = s.name, clientmount.NewClient(client), &s.machine, client.RetryRate(), log
	o.Synced = func() {
		r.ready = time.Now()
		close(r.synced)
	}
	controller := clientmount.NewController(o)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		follow := make(chan error, 1)
		go func() { follow <- controller.Follow(ctx) }()
		err := controller.Run(ctx)
		r.done <- errors.Join(err, <-follow)
	}()
	s.daemon = r
	return nil
}

// stopAll stops all daemons and closes their connections.
func (f *fleet) stopAll() (err error) {
	if f.reference != nil {
		return f.reference.stopAll()
	}
	for _, s := range f.nodes {
		if s.daemon != nil {
			s.daemon.stop()
		}
	}
	for _, s := range f.nodes {
		if s.daemon == nil {
			continue
		}
		if e := <-s.daemon.done; e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", s.name, e))
		}
		s.daemon.close()
		s.daemon = nil
	}
	return err
}

// traffic returns the traffic of each node, nil for a stopped one.
func (f *fleet) traffic() []*traffic {
	if f.reference != nil {
		_ = f.reference.call("counts") // an error also ends the simulation
	}
	out := make([]*traffic, len(f.nodes))
	for i, s := range f.nodes {
		if s.daemon != nil {
			out[i] = s.daemon.traffic
		}
	}
	return out
}

// errorLog collects the records of level error, which no scenario without failures may
// have, and the last warnings, which explain a failure.
type errorLog struct {
	mu       sync.Mutex
	list     []string // the first errors
	warnings []string // the last ones
}

// Enabled implements slog.Handler.
func (l *errorLog) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn
}

// Handle implements slog.Handler.
func (l *errorLog) Handle(_ context.Context, r slog.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	text := "logged: " + r.Message
	r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
	switch {
	case r.Level < slog.LevelError:
		l.warnings = append(l.warnings[max(0, len(l.warnings)-maxWrong+1):], text)
	case len(l.list) <= maxWrong:
		l.list = append(l.list, text)
	}
	return nil
}

// WithAttrs implements slog.Handler.
func (l *errorLog) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup implements slog.Handler.
func (l *errorLog) WithGroup(string) slog.Handler { return l }

// take returns the first errors since the last call.
func (l *errorLog) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.list
	l.list = nil
	return out
}

// explanation returns the first errors and the last warnings.
func (l *errorLog) explanation() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Concat(l.list, l.warnings)
}
