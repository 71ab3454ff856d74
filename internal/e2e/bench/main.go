// Command bench measures what clientmountd, nnf-dm and nnf-deploy cost, on a real API
// server, real mounts and real sockets, and prints every figure beside its
// target. It measures the released builds with their default settings, from
// outside: the kernel's accounts, a proxy before the API server, clients of
// several users, and for the time inside a mount the daemon's own debug log.
//
// A miss is printed and is no failure unless --check is given: exit codes are
// 0, 1 for a miss with --check or when something could not be measured, 2 for
// a wrong command line, 130 after Ctrl-C.
//
// It must not know how the daemons work inside, and it never averages a bad
// figure away: medians come with their extremes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// options are the command line.
type options struct {
	json, check bool
	settle      time.Duration // before the idle figures
	window      time.Duration // of the idle figures
	runs        int           // mounts
	starts      int
	processes   int
	clients     int // of nnf-dm, idle
	connections int // of one user, to disturb another
	polls       int
	waits       int
	simulated   int // nodes of nnf-deploy
}

func main() {
	if os.Getenv(asSSH) != "" {
		if err := ssh(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(255)
		}
		return
	}
	useNeighbours()
	o, code := parse(os.Args[1:])
	if code >= 0 {
		os.Exit(code)
	}
	os.Exit(run(lab.Enter(), o))
}

// parse returns the options, or the exit code when there is nothing to do.
func parse(args []string) (options, int) {
	o := options{}
	f := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	f.BoolVar(&o.check, "check", false, "exit with 1 when a target is missed")
	f.DurationVar(&o.settle, "settle", 90*time.Second, "how long the daemon is left alone before it is measured idle: longer than the minute between bookmarks")
	f.DurationVar(&o.window, "window", 120*time.Second, "how long context switches are counted")
	f.IntVar(&o.runs, "mounts", 30, "how many mounts are made")
	f.IntVar(&o.starts, "starts", 20, "how often the daemon is started")
	f.IntVar(&o.processes, "processes", 5000, "how many processes are searched for the holder of a mount")
	f.IntVar(&o.clients, "clients", 1000, "how many clients are connected to nnf-dm while its memory is measured")
	f.IntVar(&o.connections, "connections", 5000, "how many connections one user opens while another's calls are measured")
	f.IntVar(&o.polls, "polls", 2000, "how often the status of a transfer is asked for")
	f.IntVar(&o.waits, "waits", 100, "how many waits for the end of a transfer are measured")
	f.IntVar(&o.simulated, "nodes", 200, "how many simulated nodes nnf-deploy goes to")
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return o, 2
	case f.NArg() > 0 || min(o.runs, o.starts, o.processes, o.clients, o.connections, o.polls, o.waits, o.simulated) < 1 || o.settle < 0 || o.window <= 0:
		fmt.Fprintln(os.Stderr, "bench: numbers must be positive and there are no arguments; see --help")
		return o, 2
	}
	return o, -1
}

// useNeighbours takes the other programs from the folder that this one is in.
func useNeighbours() {
	self, err := os.Executable()
	if err != nil {
		return
	}
	for variable, name := range map[string]string{"DEVCLUSTER": "devcluster", "CLIENTMOUNTD": "clientmountd", "NNF_DM": "nnf-dm", "NNF_DEPLOY": "nnf-deploy", "LAB_STANDIN": "standin"} {
		path := filepath.Join(filepath.Dir(self), name)
		if _, err := os.Stat(path); err == nil && os.Getenv(variable) == "" {
			os.Setenv(variable, path)
		}
	}
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

// measure takes all figures, the quiet ones first.
func measure(ctx context.Context, o options) (r *report, err error) {
	b := &bench{options: o, ctx: ctx}
	if b.Lab, err = lab.New(""); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	b.say("starting the API server")
	if b.cluster, err = b.StartCluster(ctx, lab.ClusterOptions{}); err != nil {
		return nil, err
	}
	b.report.Machine = facts()
	if b.offload, err = b.newOffload(); err != nil {
		return nil, err
	}
	var quiet, used []*subject
	for _, part := range []struct {
		about program
		what  string
		take  func() error
	}{
		{"", "size", b.size},
		{"", fmt.Sprintf("connecting %d clients", o.clients), func() (err error) { quiet, err = b.fresh(); return err }},
		{"", fmt.Sprintf("idle: %v to settle, %v of counting", o.settle, o.window), func() error { return b.idle(quiet) }},
		{clientmountd, fmt.Sprintf("%d starts", o.starts), b.start},
		{nnfDM, fmt.Sprintf("%d starts by a client", o.starts), b.offload.activate},
		{nnfDM, "requests to the API server", b.offload.requests},
		{nnfDM, fmt.Sprintf("%d polls, %d waits", o.polls, o.waits), keep(&used, b.offload.times)},
		{clientmountd, fmt.Sprintf("%d lives of a ClientMount", o.runs), keep(&used, b.lives)},
		{"", fmt.Sprintf("%v to settle once more", o.settle), func() error { return b.idle(used) }},
		{nnfDM, fmt.Sprintf("one user's calls among %d connections of another", o.connections), b.offload.crowded},
		{clientmountd, fmt.Sprintf("who holds a mount, among %d processes", o.processes), b.holders},
		{nnfDeploy, fmt.Sprintf("%d simulated nodes, twice", o.simulated), b.fleet},
	} {
		b.say(strings.TrimPrefix(string(part.about)+": "+part.what, ": "))
		b.about = part.about
		if err := part.take(); err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
	}
	return &b.report, nil
}

// keep appends the daemon that a measurement leaves running.
func keep(list *[]*subject, take func() (*subject, error)) func() error {
	return func() error {
		s, err := take()
		if err == nil {
			*list = append(*list, s)
		}
		return err
	}
}
