// Command fleetsim measures how many nodes load one API server. It runs the controller and
// the API client of clientmountd for each simulated node, with its own connection, token
// and runtime directory, against a real API server in another process. Only the machine is
// simulated: nothing is mounted. On a share of the nodes it also runs the server of nnf-dm,
// with a job that uses its socket; no data is copied. With --reference it repeats a part of
// the scenarios with a fleet that works the way of the reference daemon (program
// fleetsim-reference), and compares the load.
//
// It prints one row per scenario and checks that each node did what it had to do. Exit
// codes: 0; 1 if a check failed or something could not be measured; 2 for a usage error;
// 130 after Ctrl-C.
//
// It must not change how the controller or the client works: their settings are the
// defaults of clientmountd.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"sync/atomic"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/version"
)

// options are the command-line options.
type options struct {
	json   bool
	nodes  int
	spread time.Duration // of the second start
	steady time.Duration // of the steady state
	outage time.Duration // how long the API server is down
	sample int           // most nodes of a job that need not be on all nodes

	only      string // a part of the scenarios; empty: all
	reference bool   // run the reference fleet as well
}

func main() {
	o, code := parse(os.Args[1:])
	if code >= 0 {
		os.Exit(code)
	}
	os.Exit(run(lab.Enter(), o))
}

// parse returns the options, or an exit code ≥ 0 if there is nothing to do.
func parse(args []string) (options, int) {
	o := options{}
	f := pflag.NewFlagSet("fleetsim", pflag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "print the figures as JSON")
	f.IntVar(&o.nodes, "nodes", 1000, "number of nodes, at least 10")
	f.DurationVar(&o.spread, "spread", time.Minute, "time within which the nodes start in the second scenario")
	f.DurationVar(&o.steady, "steady", 5*time.Minute, fmt.Sprintf("duration of the steady state; with more than %d nodes, 1m by default", large))
	f.DurationVar(&o.outage, "outage", time.Minute, "how long the API server is down in the longest outage")
	f.IntVar(&o.sample, "sample", 1000, "number of nodes with the jobs that need not run on all nodes, at least 10")
	f.StringVar(&o.only, "only", "", fmt.Sprintf("run only a part of the scenarios: load (starts, jobs, copies), outages, compare (what --reference repeats), or copies (on up to %d nodes)", maxCopies))
	f.BoolVar(&o.reference, "reference", false, "run the same scenarios with the reference fleet, and print the ratios; needs "+referenceProgram)
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return o, 0
	case err != nil:
		fmt.Fprintln(os.Stderr, "fleetsim:", err)
		return o, 2
	case !slices.Contains([]string{"", onlyLoad, onlyOutages, onlyCompare, onlyCopies}, o.only) || o.reference && o.only != "" && o.only != onlyCompare:
		fmt.Fprintln(os.Stderr, "fleetsim: --only must be load, outages, compare or copies, with --reference compare; see --help")
		return o, 2
	case f.NArg() > 0 || o.nodes < 10 || o.nodes > 99_999 || o.sample < 10 || o.spread < 0 || o.steady < 0 || o.outage < 0:
		fmt.Fprintln(os.Stderr, "fleetsim: --nodes must be from 10 to 99999, --sample at least 10, durations must not be negative, and arguments are not accepted; see --help")
		return o, 2
	}
	if o.nodes > large && !f.Changed("steady") {
		o.steady = time.Minute
	}
	return o, -1
}

// large is the number of nodes above which the whole simulation is shortened. It is also
// the size of the largest reference fleet: this machine must run that one as well.
const large = 2000

func run(f lab.Features, o options) int {
	if o.reference && o.nodes > large {
		fmt.Fprintf(os.Stderr, "fleetsim: not compared with the reference fleet, which is limited to %d nodes\n", large)
		o.reference = false
	}
	if !f.Private {
		fmt.Fprintln(os.Stderr, "fleetsim: not possible on this machine:", f.Why)
		return 1
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	r, err := simulate(ctx, o)
	if ctx.Err() != nil {
		return 130
	}
	if r != nil { // after a failure, the scenarios before it
		err = errors.Join(err, r.write(os.Stdout, o.json))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleetsim:", err)
		return 1
	}
	for _, text := range r.failures() {
		fmt.Fprintln(os.Stderr, "fleetsim: wrong:", text)
	}
	if len(r.failures()) > 0 {
		return 1
	}
	return 0
}

// lateness measures how late this process acts, because it waits for a processor.
type lateness struct{ most atomic.Int64 } // ns

// measure measures until ctx ends or stop is called.
func (l *lateness) measure(ctx context.Context) (stop func()) {
	const every = 20 * time.Millisecond
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			start := time.Now()
			kube.Pause(ctx, every)
			l.note(time.Since(start) - every)
		}
	}()
	return func() { cancel(); <-done }
}

func (l *lateness) note(late time.Duration) {
	for most := l.most.Load(); int64(late) > most && !l.most.CompareAndSwap(most, int64(late)); most = l.most.Load() {
	}
}

// take returns the longest delay since the last call.
func (l *lateness) take() time.Duration { return time.Duration(l.most.Swap(0)) }

func (s *simulation) say(what string) {
	fmt.Fprintf(os.Stderr, "fleetsim: %s %s\n", time.Now().Format(time.TimeOnly), what)
}

// simulate runs all scenarios. All files are in a private memory file system, which
// disappears with the process.
func simulate(ctx context.Context, o options) (_ *report, err error) {
	if err := openFiles(o); err != nil {
		return nil, err
	}
	if o.reference {
		if _, err := lab.Binary(referenceProgram); err != nil {
			return nil, fmt.Errorf("%w; make fleet builds it", err)
		}
	}
	dir, err := memoryDirectory()
	if err != nil {
		return nil, err
	}
	l := lab.Processes(dir)
	s := &simulation{options: o, ctx: ctx}
	defer s.late.measure(ctx)()
	defer func() { err = errors.Join(err, l.Close(), os.RemoveAll(dir)) }()
	s.report.Machine, s.report.Nodes = figures.ThisMachine(version.Version), o.nodes
	s.say("starting the API server")
	if s.cluster, err = l.StartCluster(ctx, lab.ClusterOptions{}); err != nil {
		return nil, err
	}
	nodes := dir + "/nodes"
	if err := os.Mkdir(nodes, 0o700); err != nil {
		return nil, err
	}
	if s.fleet, err = newFleet(o.nodes, nodes, s.cluster); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.fleet.stopAll()) }()
	s.say("creating the namespaces")
	if err := s.prepare(); err != nil {
		return nil, err
	}
	s.accounts = accounts{cluster: s.cluster, dir: dir}
	if s.manager, err = newManager(ctx, &s.accounts); err != nil {
		return nil, err
	}
	defer s.manager.close()
	if s.ServerRSS, err = s.serverMemory(); err != nil {
		return nil, err
	}
	if err := s.all(); err != nil || !o.reference {
		return &s.report, err
	}
	return &s.report, s.compare(l, dir)
}

// memoryDirectory creates a directory in the private /run of the namespace.
func memoryDirectory() (string, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs("/run", &fs); err != nil {
		return "", err
	}
	if fs.Type != unix.TMPFS_MAGIC {
		return "", errors.New("/run is not a memory file system")
	}
	return os.MkdirTemp("/run", "fleet-")
}

// openFiles raises the limit of open files, for the connections of the nodes here and in the
// API server, which inherits the limit. A node that copies has a socket, both ends of the
// connection to it, and a connection of nnf-dm.
func openFiles(o options) error {
	need := uint64(o.nodes + 6*o.copying() + 1000)
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur, l.Max = max(need, l.Cur), max(need, l.Max)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return fmt.Errorf("%d nodes need %d open files (ulimit -n): %w", o.nodes, need, err)
	}
	return nil
}
