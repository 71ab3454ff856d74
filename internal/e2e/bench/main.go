// Command bench measures what clientmountd costs, on a real API server and
// real mounts, and prints every figure beside its target. It measures the
// released build with its default settings, from outside: the kernel's
// accounts, a proxy before the API server, and for the time inside a mount the
// daemon's own debug log.
//
// A miss is printed and is no failure unless --check is given: exit codes are
// 0, 1 for a miss with --check or when something could not be measured, 2 for
// a wrong command line, 130 after Ctrl-C.
//
// It must not know how the daemon works inside, and it never averages a bad
// figure away: medians come with their extremes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
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
}

func main() {
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
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		return o, 2
	case f.NArg() > 0 || min(o.runs, o.starts, o.processes) < 1 || o.settle < 0 || o.window <= 0:
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
	for variable, name := range map[string]string{"DEVCLUSTER": "devcluster", "CLIENTMOUNTD": "clientmountd", "LAB_STANDIN": "standin"} {
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
	for _, part := range []struct {
		what string
		take func() error
	}{
		{"size", b.size},
		{fmt.Sprintf("idle: %v to settle, %v of counting", o.settle, o.window), b.idle},
		{fmt.Sprintf("%d starts", o.starts), b.start},
		{fmt.Sprintf("%d lives of a ClientMount", o.runs), b.lives},
		{fmt.Sprintf("who holds a mount, among %d processes", o.processes), b.holders},
	} {
		b.say(part.what)
		if err := part.take(); err != nil {
			return nil, fmt.Errorf("%s: %w", part.what, err)
		}
	}
	return &b.report, nil
}
