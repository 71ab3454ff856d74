// Command bench measures the resource usage and the speed of clientmountd, nnf-dm and
// nnf-deploy, with a real API server, real mounts and real sockets. It prints each figure
// with its target. It measures the release builds with default settings from the outside:
// by /proc, a proxy in front of the API server, and clients of several users. Only the
// overhead of a mount is from the debug log of the daemon.
//
// A missed target is only a failure with --check. Exit codes: 0; 1 for a missed target
// with --check, or if something could not be measured; 2 for a usage error; 130 after
// Ctrl-C.
//
// It must not depend on the internals of the daemons, and it does not hide bad values:
// medians are printed with minimum and maximum.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/budget"
	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// options are the command-line options.
type options struct {
	json, check bool
	settle      time.Duration // wait before the idle figures
	window      time.Duration // measurement time of the idle figures
	runs        int           // mounts
	starts      int
	processes   int
	clients     int // idle clients of nnf-dm
	connections int // connections of one user while calls of another are measured
	polls       int
	waits       int
	simulated   int // simulated nodes of nnf-deploy, each with a process for ssh

	many         int // simulated nodes on one API server
	nodesAtScale int // nodes of nnf-deploy in virtual time
	sessions     int // nodes of nnf-deploy with a real ssh

	onlySoak    bool // instead of all other figures
	lifeCount   int
	createCount int
	samples     int
	loadTime    time.Duration
	idleTime    time.Duration
}

func main() {
	if os.Getenv(asSSH) != "" {
		if err := ssh(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(255)
		}
		return
	}
	o, code := parse(os.Args[1:])
	if code >= 0 {
		os.Exit(code)
	}
	os.Exit(run(lab.Enter(), o))
}

// parse returns the options, or an exit code ≥ 0 if there is nothing to do.
func parse(args []string) (options, int) {
	o := options{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	f.BoolVar(&o.check, "check", false, "exit with code 1 if a target is missed")
	f.DurationVar(&o.settle, "settle", 90*time.Second, "how long a daemon is idle before its memory is measured; longer than the minute between bookmarks")
	f.DurationVar(&o.window, "window", 120*time.Second, "how long to count context switches")
	f.IntVar(&o.runs, "mounts", 30, "number of mounts")
	f.IntVar(&o.starts, "starts", 20, "number of starts of each daemon")
	f.IntVar(&o.processes, "processes", 5000, "number of processes that are searched for the holder of a mount")
	f.IntVar(&o.clients, "clients", 1000, "number of clients that are connected to nnf-dm while its memory is measured")
	f.IntVar(&o.connections, "connections", 5000, "number of connections that one user opens while calls of another user are measured")
	f.IntVar(&o.polls, "polls", 2000, "number of status requests for a transfer")
	f.IntVar(&o.waits, "waits", 100, "number of measured waits for the end of a transfer")
	f.IntVar(&o.simulated, "nodes", 200, "number of simulated nodes of nnf-deploy")
	f.IntVar(&o.many, "fleet", 300, "number of simulated nodes on one API server, at least 10")
	f.IntVar(&o.nodesAtScale, "scale", 11136, "number of nodes of nnf-deploy in virtual time, at least 600")
	f.IntVar(&o.sessions, "sessions", 500, "number of nodes of nnf-deploy with a real ssh")
	f.BoolVar(&o.onlySoak, "soak", false, "measure only what changes during long use")
	f.IntVar(&o.lifeCount, "lives", 10_000, "with --soak, number of ClientMounts")
	f.IntVar(&o.createCount, "creates", 100_000, "with --soak, number of data movements")
	f.IntVar(&o.samples, "samples", 60, "with --soak, number of samples during the load, at least 6")
	f.DurationVar(&o.loadTime, "load", 24*time.Hour, "with --soak, how long the load may take; after that, the rest is left out")
	f.DurationVar(&o.idleTime, "idle", 30*time.Minute, "with --soak, how long the daemons are idle after the load")
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return o, 2
	case f.NArg() > 0 || min(o.runs, o.starts, o.processes, o.clients, o.connections, o.polls, o.waits, o.simulated, o.sessions) < 1 || o.nodesAtScale < 600 || o.many < 10 || o.settle < 0 || o.window <= 0 ||
		o.samples < 6 || min(o.lifeCount, o.createCount) < o.samples || min(o.idleTime, o.loadTime) <= 0:
		fmt.Fprintln(os.Stderr, "bench: numbers must be positive, and arguments are not accepted; see --help")
		return o, 2
	}
	return o, -1
}

func run(f lab.Features, o options) int {
	if !f.Full() {
		fmt.Fprintln(os.Stderr, "bench: not possible on this machine:", f.Why)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	r, err := measure(ctx, o)
	if ctx.Err() != nil {
		return 130
	}
	if err == nil {
		err = r.write(os.Stdout, o.json)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		return 1
	}
	if o.check && r.misses() > 0 {
		return 1
	}
	return 0
}

// bench has the state that all measurements share.
type bench struct {
	*lab.Lab
	options
	report
	tb      lab.TB
	cluster *lab.Cluster
	copies  *copies
}

func (b *bench) say(what string) { fmt.Fprintln(os.Stderr, "bench:", what) }

func (b *bench) must(err error) {
	b.tb.Helper()
	if err != nil {
		b.tb.Fatal(err)
	}
}

// pause waits for d, or until Ctrl-C.
func (b *bench) pause(d time.Duration) { wait.Pass(b.tb, d, "a measurement") }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measure measures all figures, the idle ones first.
func measure(ctx context.Context, o options) (r *report, err error) {
	b := &bench{options: o}
	if b.Lab, err = lab.New(""); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	b.say("starting the API server")
	if b.cluster, err = b.StartCluster(ctx, lab.ClusterOptions{}); err != nil {
		return nil, err
	}
	b.report.Machine = figures.ThisMachine(version())
	return &b.report, lab.Do(ctx, func(tb lab.TB) {
		b.tb = tb
		if b.onlySoak {
			b.soak()
		} else {
			b.all()
		}
	})
}

func (b *bench) all() {
	b.copies = b.newCopies()
	var quiet, used []*subject
	for _, part := range []struct {
		about program
		what  string
		take  func()
	}{
		{"", "size", b.size},
		{"", fmt.Sprintf("connecting %d clients", b.clients), func() { quiet = b.fresh() }},
		{"", fmt.Sprintf("idle: settling for %v, counting for %v", b.settle, b.window), func() { b.idle(quiet) }},
		{clientmountd, fmt.Sprintf("%d starts", b.starts), b.start},
		{nnfDM, fmt.Sprintf("%d socket activations", b.starts), b.copies.activate},
		{nnfDM, "requests to the API server", b.copies.requests},
		{nnfDM, fmt.Sprintf("%d polls, %d waits", b.polls, b.waits), func() { used = append(used, b.copies.times()) }},
		{clientmountd, fmt.Sprintf("%d ClientMounts from creation to deletion", b.runs), func() { used = append(used, b.lives()) }},
		{"", fmt.Sprintf("settling for %v again", b.settle), func() { b.idle(used) }},
		{nnfDM, fmt.Sprintf("calls of one user during %d connections of another", b.connections), b.copies.crowded},
		{clientmountd, fmt.Sprintf("search for the holder of a mount, %d processes", b.processes), b.holders},
		{nnfDeploy, fmt.Sprintf("%d simulated nodes, two runs", b.simulated), b.fleet},
		{clientmountd, fmt.Sprintf("%d nodes on one API server", b.many), b.manyNodes},
		{nnfDeploy, fmt.Sprintf("%d nodes in virtual time", b.nodesAtScale), b.scale},
		{nnfDeploy, fmt.Sprintf("accounts of %d nodes in virtual time", b.nodesAtScale), b.identities},
		{nnfDeploy, fmt.Sprintf("%d ssh sessions", b.sessions), b.realSessions},
	} {
		b.say(strings.TrimPrefix(string(part.about)+": "+part.what, ": "))
		b.about = part.about
		part.take()
	}
}

// size measures the release binaries, in 10^6 bytes.
func (b *bench) size() {
	for _, p := range []program{clientmountd, nnfDM} {
		path, err := lab.Binary(string(p))
		b.must(err)
		s, err := os.Stat(path)
		b.must(err)
		b.about = p
		b.add("binary size", "MB", float64(budget.MaxSize(string(p)))/1e6, true, []float64{float64(s.Size()) / 1e6}, "release build, stripped; MB = 10^6 bytes")
	}
}

// version returns the version of the measured daemon.
func version() string {
	path, err := lab.Binary(string(clientmountd))
	if err != nil {
		return ""
	}
	out, _ := exec.Command(path, "version").Output()
	return strings.TrimPrefix(strings.TrimSpace(string(out)), "Version ")
}
