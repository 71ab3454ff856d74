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
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/compute-daemons/compute-daemons/internal/e2e/budget"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
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

// bench is what all measurements share.
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

// pause waits, but not after Ctrl-C.
func (b *bench) pause(d time.Duration) { wait.Pass(b.tb, d, "a measurement") }

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// measure takes all figures, the quiet ones first.
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
	b.report.Machine = facts()
	return &b.report, lab.Do(ctx, func(tb lab.TB) {
		b.tb = tb
		b.all()
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
		{"", fmt.Sprintf("idle: %v to settle, %v of counting", b.settle, b.window), func() { b.idle(quiet) }},
		{clientmountd, fmt.Sprintf("%d starts", b.starts), b.start},
		{nnfDM, fmt.Sprintf("%d starts by a client", b.starts), b.copies.activate},
		{nnfDM, "requests to the API server", b.copies.requests},
		{nnfDM, fmt.Sprintf("%d polls, %d waits", b.polls, b.waits), func() { used = append(used, b.copies.times()) }},
		{clientmountd, fmt.Sprintf("%d lives of a ClientMount", b.runs), func() { used = append(used, b.lives()) }},
		{"", fmt.Sprintf("%v to settle once more", b.settle), func() { b.idle(used) }},
		{nnfDM, fmt.Sprintf("one user's calls among %d connections of another", b.connections), b.copies.crowded},
		{clientmountd, fmt.Sprintf("who holds a mount, among %d processes", b.processes), b.holders},
		{nnfDeploy, fmt.Sprintf("%d simulated nodes, twice", b.simulated), b.fleet},
	} {
		b.say(strings.TrimPrefix(string(part.about)+": "+part.what, ": "))
		b.about = part.about
		part.take()
	}
}

// size is the released binaries', in 10^6 bytes.
func (b *bench) size() {
	for _, p := range []program{clientmountd, nnfDM} {
		path, err := lab.Binary(string(p))
		b.must(err)
		s, err := os.Stat(path)
		b.must(err)
		b.about = p
		b.add("binary size", "MB", float64(budget.MaxSize(string(p)))/1e6, true, []float64{float64(s.Size()) / 1e6}, "stripped, as released; MB = 10^6 bytes")
	}
}

// machine says where the figures come from; without it they mean nothing.
type machine struct {
	Time      string `json:"time"`
	Daemon    string `json:"daemon"`
	Cores     int    `json:"cores"`
	Processor string `json:"processor"`
	Memory    int64  `json:"memory_mib"`
	Kernel    string `json:"kernel"`
	Go        string `json:"go"`
	Load      string `json:"load"` // averages of 1, 5 and 15 minutes before
}

func (m machine) String() string {
	return fmt.Sprintf("compute-daemons %s, %s, %d cores (%s), %d MiB, Linux %s, load %s before, %s",
		m.Daemon, m.Go, m.Cores, m.Processor, m.Memory, m.Kernel, m.Load, m.Time)
}

func facts() machine {
	m := machine{Time: time.Now().UTC().Format("2006-01-02 15:04 MST"), Cores: runtime.NumCPU(), Go: runtime.Version(), Processor: runtime.GOARCH}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = int64(s.Totalram) * int64(s.Unit) >> 20
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Processor = strings.TrimSpace(value)
			break
		}
	}
	if path, err := lab.Binary(string(clientmountd)); err == nil {
		out, _ := exec.Command(path, "version").Output()
		m.Daemon = strings.TrimPrefix(strings.TrimSpace(string(out)), "Version ")
	}
	return m
}
