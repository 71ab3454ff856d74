package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// patience limits each wait of a scenario.
const patience = 10 * time.Minute

// betweenJobs is the time from the end of a job to the start of the next one. A daemon
// uses a profile for a new ClientMount that it has read less than a second ago, which is
// the exception in practice.
const betweenJobs = 1500 * time.Millisecond

// The most requests of a node: at the start, and in the life of a ClientMount.
const (
	maxStart    = 2
	maxWrites   = 4
	maxProfiles = 2
)

// simulation is the fleet with its API server.
type simulation struct {
	options
	report
	ctx      context.Context
	cluster  *lab.Cluster
	fleet    *fleet
	manager  *manager
	late     lateness
	accounts accounts
	jobs     int          // number of jobs so far
	part     []*simulated // evenly spread: the nodes of the jobs that need not run on all nodes
	quiet    *row         // the last job without disturbance
}

// The values of --only.
const (
	onlyLoad    = "load"    // starts, jobs and copies
	onlyOutages = "outages" // failures and changes of the API server
	onlyCompare = "compare" // what the reference fleet can do
	onlyCopies  = "copies"  // copy offload on up to maxCopies nodes
)

// all runs the scenarios.
func (s *simulation) all() error {
	list := []scenario{{"start of all nodes at once", s.startAtOnce}}
	if s.only != onlyOutages && s.only != onlyCopies {
		list = append(list,
			scenario{fmt.Sprintf("start of all nodes within %v", s.spread), s.startSpread},
			scenario{fmt.Sprintf("steady state for %v", s.steady), s.steadyState},
			s.jobOn("first job", s.fleet.nodes),
			s.jobOn("second job", s.part))
	}
	if s.only == "" || s.only == onlyLoad {
		list = append(list,
			scenario{"jobs with a noisy client", s.noisyJobs},
			scenario{"job while 10 % of the nodes fail", s.failing})
	}
	if n := s.copying(); n > 0 {
		copying := s.atMost(n)
		list = append(list, scenario{fmt.Sprintf("copy offload on %d nodes", len(copying)), func() error { return s.copies(copying) }})
	}
	if s.only == "" || s.only == onlyOutages {
		list = append(list, scenario{"failures and changes of the API server", s.outages})
	}
	switch {
	case s.shortened():
		s.say(fmt.Sprintf("with more than %d nodes, copies and some failures of the API server are left out; --only=%s and --only=%s have them", large, onlyCopies, onlyOutages))
	case s.nodes > large && s.only == onlyOutages: // both servers and the nodes need more open files than the system permits
		s.say(fmt.Sprintf("with more than %d nodes, two API servers are left out", large))
	case s.only == "" || s.only == onlyOutages:
		list = append(list, scenario{"two API servers", s.severalServers})
	}
	if s.only == onlyCompare {
		list = append(list, scenario{"API server restarted", s.restarts})
	}
	return s.each(append(list, scenario{"end", s.end}))
}

// atMost returns at most n nodes, evenly spread.
func (s *simulation) atMost(n int) (nodes []*simulated) {
	step := (len(s.fleet.nodes) + n - 1) / n
	for i := 0; i < len(s.fleet.nodes); i += step {
		nodes = append(nodes, s.fleet.nodes[i])
	}
	return nodes
}

// on adds to the name of a scenario on which nodes it runs.
func (s *simulation) on(name string, nodes []*simulated) string {
	if len(nodes) < len(s.fleet.nodes) {
		return fmt.Sprintf("%s on %d nodes", name, len(nodes))
	}
	return name + " on all nodes"
}

// scenario is a step of the simulation.
type scenario struct {
	what string
	run  func() error
}

func (s *simulation) each(list []scenario) error {
	for _, scenario := range list {
		s.say(scenario.what)
		if err := scenario.run(); err != nil {
			for _, text := range s.fleet.errors.explanation() {
				err = fmt.Errorf("%w\n%s", err, text)
			}
			return fmt.Errorf("%s: %w", scenario.what, err)
		}
	}
	return nil
}

// shortened reports whether scenarios are left out, because all of them together would take
// most of an hour with many nodes.
func (s *simulation) shortened() bool { return s.only == "" && len(s.fleet.nodes) > large }

// prepare selects the nodes of the smaller jobs, and creates the namespaces and the storage
// profile.
func (s *simulation) prepare() error {
	s.part = s.atMost(s.sample)
	if _, err := s.cluster.Apply(s.ctx, fixture.Profile(profileName, fixture.ProfileSpec{})); err != nil {
		return err
	}
	return parallel(writers, s.fleet.nodes, func(n *simulated) error {
		_, err := s.cluster.Apply(s.ctx, namespace(n.name))
		return err
	})
}

func namespace(name string) lab.Object {
	return lab.Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}
}

// measure runs f, and adds a row with what it has cost clientmountd on all nodes. f adds
// the times and the results of its checks.
func (s *simulation) measure(name string, f func(r *row) error) error {
	return s.measureOf(s.fleet.traffic, name, f)
}

// measureOf is measure for other daemons, whose clients it gets before and after f.
func (s *simulation) measureOf(clients func() []*traffic, name string, f func(r *row) error) error {
	before := countsOf(clients())
	r := &row{Scenario: name, Nodes: len(before), started: time.Now()}
	s.fleet.errors.take()
	s.late.take()
	server, err := s.cluster.Usage()
	if err != nil {
		return err
	}
	r.server = server
	busy, had, own, err := s.processors()
	if err != nil {
		return err
	}
	if err := f(r); err != nil {
		return err
	}
	after, err := s.cluster.Usage()
	if err != nil {
		return err
	}
	busyNow, hadNow, ownNow, err := s.processors()
	if err != nil {
		return err
	}
	list := clients()
	r.perNode = countsOf(list)
	for i := range r.perNode {
		r.perNode[i].add(-1, before[i])
		r.sum.add(1, r.perNode[i])
	}
	r.errors = s.fleet.errors.take()
	if r.restarted {
		r.server = lab.Usage{}
	}
	r.Late = s.late.take().Seconds()
	r.finish(after, peak(list, r.started))
	r.Others = max(0, float64(busyNow-busy-(ownNow-own)-(after.CPU-r.server.CPU))/float64(hadNow-had))
	if s.fleet.reference != nil {
		r.checks = []func(*row){func(r *row) { r.wrong(r.errors) }}
	}
	for _, check := range r.checks {
		check(r)
	}
	s.Rows = append(s.Rows, r)
	return nil
}

// processors returns the busy time and the time of all processors, and the busy time of the
// simulation.
func (s *simulation) processors() (busy, had, own time.Duration, err error) {
	if busy, had, err = figures.Processors(); err != nil {
		return 0, 0, 0, err
	}
	u, err := lab.ReadUsage(os.Getpid())
	if err != nil {
		return 0, 0, 0, err
	}
	r, err := s.fleet.reference.usage()
	return busy, had, u.CPU + r.CPU, err
}

// peak returns the largest number of connections that the clients opened within one
// second, as a share of their number.
func peak(clients []*traffic, since time.Time) float64 {
	var times []time.Time
	for _, t := range clients {
		if t != nil {
			times = append(times, t.connections(since)...)
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	most, first := 0, 0
	for i, t := range times {
		for t.Sub(times[first]) >= time.Second {
			first++
		}
		most = max(most, i-first+1)
	}
	return float64(most) / float64(len(clients))
}

// perSecond lists the numbers of connections that the clients opened in each second since a time.
func perSecond(clients []*traffic, since time.Time) string {
	var seconds []int
	for _, t := range clients {
		if t == nil {
			continue
		}
		for _, at := range t.connections(since) {
			i := int(at.Sub(since) / time.Second)
			for len(seconds) <= i {
				seconds = append(seconds, 0)
			}
			seconds[i]++
		}
	}
	return strings.Trim(fmt.Sprint(seconds), "[]")
}

// follow waits until the watch of each node has delivered its initial state after the
// given time, and returns the seconds from then for each node.
func (s *simulation) follow(since time.Time) (times []float64, err error) {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	err = wait.For(ctx, "the watches of all nodes", func() (bool, error) {
		times = times[:0]
		for _, n := range s.fleet.nodes {
			if at := n.daemon.following(); at.After(since) {
				times = append(times, at.Sub(since).Seconds())
			}
		}
		return len(times) == len(s.fleet.nodes), nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %d of %d nodes follow", err, len(times), len(s.fleet.nodes))
	}
	return times, err
}

// synced waits until each node has its list of objects, and returns the seconds from the
// start of its daemon.
func (s *simulation) synced() (times []float64, err error) {
	limit := time.After(patience)
	for _, n := range s.fleet.nodes {
		select {
		case <-n.daemon.synced:
			times = append(times, n.daemon.ready.Sub(n.daemon.started).Seconds())
		case <-limit:
			return nil, fmt.Errorf("%s is not ready after %v", n.name, patience)
		case <-s.ctx.Done():
			return nil, s.ctx.Err()
		}
	}
	return times, nil
}

func (s *simulation) startAtOnce() error {
	return s.measure("start, all at once", func(r *row) error { return s.startNodes(r, 0) })
}

// startSpread starts the daemons again, as after a boot of all nodes. It then measures the
// memory.
func (s *simulation) startSpread() error {
	if err := s.fleet.stopAll(); err != nil {
		return err
	}
	before, err := s.ownMemory()
	if err != nil {
		return err
	}
	if err := s.measure(fmt.Sprintf("start, spread over %v", s.spread), func(r *row) error { return s.startNodes(r, s.spread) }); err != nil {
		return err
	}
	after, err := s.ownMemory()
	if err != nil {
		return err
	}
	s.Memory = float64(after-before) / 1000 / float64(len(s.fleet.nodes))
	return nil
}

// startNodes starts all daemons within a time.
func (s *simulation) startNodes(r *row, within time.Duration) error {
	r.checks = append(r.checks, healthy, func(r *row) {
		r.each("start", func(c counts) bool { return c.total() <= maxStart && c.requests[watch] == 1 })
	})
	for i, n := range s.fleet.nodes {
		due := r.started.Add(within * time.Duration(i) / time.Duration(len(s.fleet.nodes)))
		if err := pause(s.ctx, time.Until(due)); err != nil {
			return err
		}
		if err := s.fleet.start(n); err != nil {
			return err
		}
	}
	times, err := s.synced()
	if err != nil {
		return err
	}
	follow, err := s.follow(r.started)
	if err != nil {
		return err
	}
	r.setTimes(times, slices.Max(follow))
	r.How = "from the start of a daemon until it is ready"
	return nil
}

// ownMemory returns the resident memory of the process that runs the daemons after a garbage
// collection, in bytes.
func (s *simulation) ownMemory() (int64, error) {
	if s.fleet.reference != nil {
		if err := s.fleet.reference.call("collect"); err != nil {
			return 0, err
		}
		u, err := s.fleet.reference.usage()
		return u.RSS, err
	}
	runtime.GC()
	debug.FreeOSMemory()
	u, err := lab.ReadUsage(os.Getpid())
	return u.RSS, err
}

func (s *simulation) steadyState() error {
	return s.measure(fmt.Sprintf("steady state, %v", s.steady), func(r *row) error {
		r.checks = append(r.checks, healthy, func(r *row) {
			r.each("steady state", func(c counts) bool { return c.total() == 0 })
			// The server sends a bookmark about once a minute.
			if least := int64(s.steady/time.Minute) - 1; least > 0 {
				r.each("bookmarks", func(c counts) bool { return c.bookmarks >= least })
			}
		})
		if err := pause(s.ctx, s.steady); err != nil {
			return err
		}
		_, err := s.follow(time.Time{})
		r.How = "no times"
		return err
	})
}

// jobOn measures a job: the times until its ClientMounts are ready, and the requests of
// their whole life. The first job is slower: the API server prepares the definitions of its
// objects.
func (s *simulation) jobOn(name string, nodes []*simulated) scenario {
	name = s.on(name, nodes)
	return scenario{name, func() error {
		return s.measure(name, func(r *row) error {
			r.checks = append(r.checks, healthy, s.lifeCosts, s.nothingLeft)
			if err := s.runJob(r, nodes, nodes); err != nil {
				return err
			}
			s.quiet = r
			return s.endJob(nodes)
		})
	}}
}

// runJob creates a ClientMount on each of the nodes and waits until those of the working
// ones are ready.
func (s *simulation) runJob(r *row, nodes, working []*simulated) error {
	r.Nodes, r.among = len(nodes), len(nodes)
	if err := s.createJob(nodes, working); err != nil {
		return err
	}
	created := time.Now()
	s.say(fmt.Sprintf("%d ClientMounts created", len(nodes)))
	if err := s.awaitJob(working); err != nil {
		return err
	}
	s.say(fmt.Sprintf("%d are ready", len(working)))
	r.setTimes(s.manager.times(func(l *lifecycle) time.Time { return l.created }), s.manager.lastMounted(r.started).Seconds())
	r.How = fmt.Sprintf("from the creation of a ClientMount until the manager sees it ready; all were created after %.1f s", created.Sub(r.started).Seconds())
	return nil
}

// createJob creates a ClientMount on each of the nodes, which the working ones must mount.
func (s *simulation) createJob(nodes, working []*simulated) error {
	s.jobs++
	for _, n := range working {
		n.mounts++
	}
	return s.manager.create(s.ctx, fmt.Sprintf("job-%d", s.jobs), nodes, func(*simulated) fixture.ClientMountSpec {
		return fixture.ClientMountSpec{Profile: profileName, Mounts: []fixture.MountSpec{{Path: "/mnt/nnf/" + fixture.WorkflowUID + "-0", Type: "xfs"}}}
	})
}

// awaitJob waits until the ClientMounts of the working nodes are ready.
func (s *simulation) awaitJob(working []*simulated) error {
	ready := map[string]bool{}
	for _, n := range working {
		ready[n.name] = true
	}
	return s.manager.awaitOn(s.ctx, "the mount on the nodes", ready, func(l *lifecycle) bool { return l.mounted.IsZero() })
}

// endJob unmounts and deletes the ClientMounts of the nodes.
func (s *simulation) endJob(nodes []*simulated) error {
	s.say("end of the job")
	if err := s.manager.unmount(s.ctx, nodes); err != nil {
		return err
	}
	s.say("all are unmounted")
	if err := s.manager.remove(s.ctx, nodes); err != nil {
		return err
	}
	return pause(s.ctx, betweenJobs)
}

// failing measures a job while the mount commands of each tenth of its nodes fail. The
// other nodes must not notice it.
func (s *simulation) failing() error {
	var broken, working []*simulated
	names := map[string]bool{}
	for i, n := range s.part {
		if i%10 != 0 {
			working = append(working, n)
			continue
		}
		n.machine.setBroken(true)
		broken, names[n.name] = append(broken, n), true
	}
	err := s.measure("job while 10 % of the nodes fail", func(r *row) error {
		r.checks = append(r.checks, s.nothingLeft, func(r *row) {
			for i, n := range s.fleet.nodes {
				if c := r.perNode[i]; !names[n.name] && !(cheapLife(c, s.manager.slow(n.name)) && served(c)) {
					r.wrong([]string{fmt.Sprintf("%s, which works: %+v", n.name, c)})
				}
			}
		})
		if err := s.runJob(r, s.part, working); err != nil {
			return err
		}
		if err := s.manager.awaitOn(s.ctx, "the errors of the failing nodes", names, func(l *lifecycle) bool { return !l.failed }); err != nil {
			return err
		}
		if mounted := s.manager.mounted(); mounted != len(working) {
			r.wrong([]string{fmt.Sprintf("%d ClientMounts are ready, expected %d", mounted, len(working))})
		}
		r.Nodes = len(working)
		r.How += fmt.Sprintf("; p99 is %.2f times that of the %s; times are those of the nodes that work, requests those of all nodes of the job", r.P99/s.quiet.P99, s.quiet.Scenario)
		return s.endJob(s.part)
	})
	for _, n := range broken {
		n.machine.setBroken(false)
	}
	return err
}

// end stops all daemons. Nothing of them may be left in this process.
func (s *simulation) end() error {
	if err := s.fleet.stopAll(); err != nil {
		return err
	}
	s.manager.close()
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	// A few goroutines belong to the lab and to the client of the cluster.
	return wait.For(ctx, "the end of the goroutines of all nodes", func() (bool, error) {
		return runtime.NumGoroutine() < 50, nil
	})
}

// nothingLeft checks that no node has anything left of the jobs. A node removes its record
// after the object is gone.
func (s *simulation) nothingLeft(r *row) {
	ctx, cancel := context.WithTimeout(s.ctx, time.Minute)
	defer cancel()
	var wrong []string
	_ = wait.For(ctx, "the end of the records", func() (bool, error) {
		wrong = clean(s.fleet.nodes)
		return len(wrong) == 0, nil
	})
	r.wrong(wrong)
}

// healthy checks a row in which the server is up.
func healthy(r *row) {
	r.wrong(r.errors)
	r.each("failed requests", served)
}

// served reports whether the API server has served all requests of a node. It may have asked the node
// once to repeat one later (429): in a burst, the server and the simulated nodes share the processors
// of one machine.
func served(c counts) bool {
	return c.failures() == c.failed[overload] && c.failed[overload] <= 1
}

// progressAfter is when clientmountd reports that a mount or unmount has not ended yet, with
// one more write.
const progressAfter = 5 * time.Second

// lifeCosts checks the requests of each node for the life of a ClientMount.
func (s *simulation) lifeCosts(r *row) {
	for i, n := range s.fleet.nodes {
		if c := r.perNode[i]; !cheapLife(c, s.manager.slow(n.name)) {
			r.wrong([]string{fmt.Sprintf("requests of a life: %s: %+v", n.name, c)})
		}
	}
}

// cheapLife reports whether a node with that number of slow mounts and unmounts has sent no
// unnecessary requests.
func cheapLife(c counts, slow int64) bool {
	return c.requests[patch] <= maxWrites+slow+c.failed[overload] && c.requests[profile] <= maxProfiles && c.requests[list] == 0 && c.requests[watch] == 0 &&
		c.requests[create]+c.requests[update] == 0 && c.requests[other] == 0 && c.failed[conflict] == 0
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
