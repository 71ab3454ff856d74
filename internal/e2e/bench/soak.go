package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
)

// Targets of the soak.
const (
	growthTarget = 50.0          // kB per hour
	wakeTarget   = 8 * 24 * 60.0 // context switches in 24 h: 8 per minute, as in the benchmark
)

// rest is how long a daemon is left alone before it is measured: both return memory to the kernel
// 5 s after the last work, so each sample is what the daemon needs, and not what awaits collection.
const rest = 7 * time.Second

// itemTime limits one item of a load, which takes a second.
const itemTime = 5 * time.Minute

// soakUsers are the users who create data movements, each with a job.
const soakUsers = 4

// cancelEvery is the share of data movements that are cancelled before they start. They are of one
// user, because nnf-dm remembers 1024 of them for each user for an hour: the memory for these is in
// use after a tenth of the load.
const cancelEvery = 10

// load is a kind of work that one daemon does many times.
type load struct {
	about   program
	what    string // unit of the work, in plural
	total   int    // to do
	workers int
	start   func() // starts the daemon
	daemon  *lab.Process
	do      func(ctx context.Context, worker, i int) error
	forget  func() error // forgets what the test environment has recorded about past work

	done    int
	samples []sample
	busy    time.Duration // without the rests
}

// sample is the use of resources while a daemon rests.
type sample struct {
	busy time.Duration // time under load before it
	lab.Usage
}

// play runs the load in parts, with a sample after each. After the limit no part is started.
func (l *load) play(ctx context.Context, parts int, limit time.Duration) error {
	start := time.Now()
	for part := range parts {
		if time.Since(start) >= limit {
			break
		}
		began := time.Now()
		if err := l.work(ctx, l.done, l.total*(part+1)/parts); err != nil {
			return fmt.Errorf("%s: %w", l.about, err)
		}
		l.done = l.total * (part + 1) / parts
		l.busy += time.Since(began)
		if err := pass(ctx, rest); err != nil {
			return err
		}
		u, err := l.daemon.Usage()
		if err != nil {
			return fmt.Errorf("%s: %w", l.about, err)
		}
		l.samples = append(l.samples, sample{l.busy, u})
		fmt.Fprintf(os.Stderr, "bench: %d %s after %.0f s: resident %d kB, anonymous %d kB, %d open files, %d threads\n",
			l.done, l.what, l.busy.Seconds(), u.RSS/1000, u.Anonymous/1000, u.Files, u.Threads)
		l.daemon.ForgetLog()
		if err := l.forget(); err != nil {
			return err
		}
	}
	return nil
}

func pass(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// work does the work with these numbers.
func (l *load) work(ctx context.Context, from, to int) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var next atomic.Int64
	next.Store(int64(from))
	errs := make([]error, l.workers)
	var group sync.WaitGroup
	for w := range l.workers {
		group.Go(func() {
			for i := next.Add(1) - 1; i < int64(to) && ctx.Err() == nil; i = next.Add(1) - 1 {
				limited, cancel := context.WithTimeout(ctx, itemTime)
				err := l.do(limited, w, int(i))
				if cancel(); err != nil {
					errs[w] = fmt.Errorf("%s %d: %w", l.what, i, err)
					stop()
					return
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// second returns the second half of the samples.
func (l *load) second() []sample { return l.samples[len(l.samples)/2:] }

// growth returns the slope of a quantity in kB per hour of load, and its standard error, over the
// second half of the load.
func (l *load) growth(bytes func(sample) int64) (perHour, deviation float64) {
	var x, y []float64
	for _, s := range l.second() {
		x, y = append(x, s.busy.Hours()), append(y, float64(bytes(s))/1000)
	}
	return slope(x, y)
}

// slope returns the slope of the regression line of y over x, and its standard error, which is
// infinite with fewer than three points.
func slope(x, y []float64) (b, deviation float64) {
	n := float64(len(x))
	mean := func(v []float64) (m float64) {
		for _, f := range v {
			m += f / n
		}
		return m
	}
	mx, my := mean(x), mean(y)
	var sxx, sxy float64
	for i := range x {
		sxx += (x[i] - mx) * (x[i] - mx)
		sxy += (x[i] - mx) * (y[i] - my)
	}
	b = sxy / sxx
	if n < 3 {
		return b, math.Inf(1)
	}
	rest := 0.0
	for i := range x {
		r := y[i] - my - b*(x[i]-mx)
		rest += r * r
	}
	return b, math.Sqrt(rest / (n - 2) / sxx)
}

// objects are the ClientMounts of a node, from one watch.
type objects struct {
	mu      sync.Mutex
	now     map[string]lab.Object
	changed chan struct{} // closed at each change
}

func (o *objects) change(apply func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	apply()
	close(o.changed)
	o.changed = make(chan struct{})
}

// follow follows the objects until ctx ends. The API server ends each watch after some time.
func (o *objects) follow(ctx context.Context, c *lab.Client, namespace string) {
	for ctx.Err() == nil {
		o.change(func() { o.now = map[string]lab.Object{} })
		_ = c.Follow(ctx, "ClientMount", namespace, func(event string, x lab.Object) {
			o.change(func() {
				if o.now[x.Name()] = x; event == "DELETED" {
					delete(o.now, x.Name())
				}
			})
		})
	}
}

// await waits until the object matches; nil means that it does not exist.
func (o *objects) await(ctx context.Context, name, what string, match func(lab.Object) bool) error {
	for {
		o.mu.Lock()
		now, changed := o.now[name], o.changed
		o.mu.Unlock()
		if match(now) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%s is not %s; its status is %v: %w", name, what, now["status"], ctx.Err())
		}
	}
}

// lifeLoad is the load of clientmountd: ClientMounts from creation to deletion, alternately with a
// file system and as a raw device.
func (b *bench) lifeLoad() (*load, *fixture.Fixture) {
	const workers = 4
	// As fast as the machine allows.
	flags := []string{"--kubernetes-qps=1000", "--kubernetes-burst=1000"}
	n := fixture.On(b.tb, b.Lab, b.cluster)
	n.UseProfile(fixture.ProfileSpec{})
	for w := range workers {
		n.Volume(w, lab.VolumeOptions{})
	}
	seen := &objects{changed: make(chan struct{})}
	ctx, stop := context.WithCancel(b.tb.Context())
	b.tb.Cleanup(stop)
	go seen.follow(ctx, n.Cluster.Client, n.Node)
	do := func(ctx context.Context, worker, i int) error {
		name := fmt.Sprintf("life-%d", i)
		m := fixture.MountSpec{Path: n.Path(fmt.Sprintf("m%d", worker)), Type: "xfs", Index: worker}
		if i%2 == 1 {
			m.Type = "none"
		}
		o := fixture.ClientMount(name, n.Node, fixture.ClientMountSpec{Profile: n.Profile, OwnerUID: n.Owner, Mounts: []fixture.MountSpec{m}})
		if _, err := n.Cluster.Create(ctx, o); err != nil {
			return err
		}
		if err := seen.await(ctx, name, "mounted", func(o lab.Object) bool { return o.Ready("mounted") }); err != nil {
			return err
		}
		if _, err := n.Cluster.Patch(ctx, "ClientMount", n.Node, name, lab.Object{"spec": map[string]any{"desiredState": "unmounted"}}); err != nil {
			return err
		}
		if err := seen.await(ctx, name, "unmounted", func(o lab.Object) bool { return o.Ready("unmounted") }); err != nil {
			return err
		}
		if err := n.Cluster.Delete(ctx, "ClientMount", n.Node, name); err != nil {
			return err
		}
		return seen.await(ctx, name, "deleted", func(o lab.Object) bool { return o == nil })
	}
	l := &load{about: clientmountd, what: "lives", total: b.lifeCount, workers: workers, do: do}
	l.start = func() { l.daemon = n.Start(flags...) }
	l.forget = n.ClearLog
	return l, n
}

// createLoad is the load of nnf-dm: data movements from their creation to their deletion. Most end
// on the rabbit while the client waits; the others are cancelled before they start.
func (b *bench) createLoad() (*load, *fixture.Fixture) {
	f := fixture.On(b.tb, b.Lab, b.cluster)
	f.Site()
	// As fast as the machine allows.
	limits := f.Settings("[kubernetes]", "qps = 1000", "burst = 1000", "[limits]", "creates_per_second = 10000", "create_burst = 100000")
	var clients []pb.DataMoverClient
	var jobs []*fixture.Job
	for u := range soakUsers {
		jobs = append(jobs, f.Job(fmt.Sprintf("soak-%d", u), jobUser+u, 0))
		conn, c, err := dial(jobUser+u, f.Socket)
		b.must(err)
		b.tb.Cleanup(func() { conn.Close() })
		clients = append(clients, c)
	}
	do := func(ctx context.Context, worker, i int) error {
		user := worker % soakUsers
		if i%cancelEvery == 0 {
			user = 0
		}
		c, job := clients[user], jobs[user]
		r, err := c.Create(ctx, job.Request("/out/", "/alice/"), grpc.WaitForReady(true))
		if err = answered("create", r, err, r.GetStatus() == pb.DataMovementCreateResponse_SUCCESS); err != nil {
			return err
		}
		if i%cancelEvery == 0 {
			r, err := c.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: job.Ref(), Uid: r.Uid})
			return answered("cancel", r, err, r.GetStatus() == pb.DataMovementCancelResponse_SUCCESS)
		}
		now := fixture.Stamp(time.Now())
		if err := f.Cluster.PatchStatus(ctx, "NnfDataMovement", f.Rabbit, r.Uid, lab.Object{"state": "Finished", "status": "Success", "startTime": now, "endTime": now}); err != nil {
			return err
		}
		s, err := c.Status(ctx, &pb.DataMovementStatusRequest{Workflow: job.Ref(), Uid: r.Uid, MaxWaitTime: 50})
		if err = answered("status", s, err, s.GetState() == pb.DataMovementStatusResponse_COMPLETED && s.GetStatus() == pb.DataMovementStatusResponse_SUCCESS); err != nil {
			return err
		}
		e, err := c.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: job.Ref(), Uid: r.Uid})
		return answered("delete", e, err, e.GetStatus() == pb.DataMovementDeleteResponse_SUCCESS)
	}
	l := &load{about: nnfDM, what: "creates", total: b.createCount, workers: 8 * soakUsers, do: do}
	l.start = func() { l.daemon = f.StartMover(limits) }
	l.forget = func() error { return nil }
	return l, f
}

// answered returns an error unless a call has succeeded with an answer that is as expected.
func answered(call string, answer fmt.Stringer, err error, expected bool) error {
	if err == nil && !expected {
		err = fmt.Errorf("unexpected answer %v", answer)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", call, err)
	}
	return nil
}

// soak measures what changes in both daemons during long use, and while they are idle after it.
func (b *bench) soak() {
	lives, mounts := b.lifeLoad()
	creates, jobs := b.createLoad()
	loads := []*load{lives, creates}
	b.say(fmt.Sprintf("%d ClientMounts and %d data movements, with %d samples", b.lifeCount, b.createCount, b.samples))
	ctx, stop := context.WithCancel(b.tb.Context())
	defer stop()
	var group sync.WaitGroup
	errs := make([]error, len(loads))
	for i, l := range loads {
		l.start()
		group.Go(func() {
			if errs[i] = l.play(ctx, b.samples, b.loadTime); errs[i] != nil {
				stop()
			}
		})
	}
	group.Wait()
	b.must(errors.Join(errs...))
	for _, l := range loads {
		b.about = l.about
		l.report(&b.report)
	}
	b.say(fmt.Sprintf("idle for %v", b.idleTime))
	b.longIdle(loads)

	for _, l := range loads {
		b.about = l.about
		used := b.goroutines(l)
		l.start()
		fresh := b.goroutines(l)
		b.add("goroutines, more than in a new process", "", 0, true, []float64{float64(used - fresh)}, fmt.Sprintf("%d after all %s, %d after %d", used, l.what, fresh, 4*l.workers))
	}
	b.about = clientmountd
	records, err := filepath.Glob(filepath.Join(mounts.Runtime, "*", "*"))
	b.must(err)
	b.add("records left", "", 0, true, []float64{float64(len(records))}, "files in the directories of records")
	b.add("ClientMounts left", "", 0, true, []float64{float64(b.count("ClientMount", mounts.Node))}, "with a finalizer they would stay")
	left, err := b.Leftovers()
	b.must(err)
	b.add("mounts, volumes and processes left", "", 0, true, []float64{float64(len(left))}, strings.Join(append([]string{"of both daemons"}, left...), ", "))
	b.about = nnfDM
	b.add("data movements left", "", 0, true, []float64{float64(b.count("NnfDataMovement", jobs.Rabbit))}, "of all users")
}

// report adds what has changed in the second half of a load.
func (l *load) report(r *report) {
	r.addLeast(l.what, "", float64(l.total), []float64{float64(l.done)}, fmt.Sprintf("in one process, all as expected, %d at a time", l.workers))
	r.add(l.what+" per second", "", noTarget, false, []float64{float64(l.done) / l.busy.Seconds()}, "at this load; without the rests")
	second := l.second()
	rss, e := l.growth(func(s sample) int64 { return s.RSS })
	how := fmt.Sprintf("± %.0f (standard error); regression over %d samples of the second half, each after %v of rest; per hour of load", e, len(second), rest)
	r.add("growth of the resident memory", "kB/h", growthTarget, true, []float64{rss}, how)
	anonymous, e := l.growth(func(s sample) int64 { return s.Anonymous })
	r.add("growth of the anonymous memory", "kB/h", growthTarget, true, []float64{anonymous}, fmt.Sprintf("± %.0f; as above", e))
	perItem := anonymous * 1000 / (float64(l.done) / l.busy.Hours())
	r.add("  the same, of each of the "+l.what, "bytes", noTarget, true, []float64{perItem}, "the growth of the anonymous memory, divided by the rate")
	for _, row := range []struct {
		name   string
		target float64
		of     func(sample) float64
	}{
		{"resident memory, MB", noTarget, func(s sample) float64 { return float64(s.RSS) / 1e6 }},
		{"anonymous memory, MB", noTarget, func(s sample) float64 { return float64(s.Anonymous) / 1e6 }},
		{"open files", float64(second[0].Files), func(s sample) float64 { return float64(s.Files) }},
		{"threads", float64(second[0].Threads), func(s sample) float64 { return float64(s.Threads) }},
	} {
		var values []float64
		for _, s := range second {
			values = append(values, row.of(s))
		}
		r.add(row.name, "", row.target, true, values, "samples of the second half; the target is the first of them")
	}
}

// longIdle counts what the daemons do while they are idle, and extrapolates it to 24 hours.
func (b *bench) longIdle(loads []*load) {
	const step = 15 * time.Second
	b.pause(b.settle) // so that the API connection of nnf-dm is closed, and the first bookmark has arrived
	began := time.Now()
	first, last := make([]lab.Usage, len(loads)), make([]lab.Usage, len(loads))
	x, y := make([][]float64, len(loads)), make([][]float64, len(loads))
	for at := time.Duration(0); ; at = min(at+step, b.idleTime) {
		b.pause(time.Until(began.Add(at)))
		for i, l := range loads {
			u, err := l.daemon.Usage()
			b.must(err)
			if last[i] = u; at == 0 {
				first[i] = u
			}
			x[i], y[i] = append(x[i], time.Since(began).Hours()), append(y[i], float64(u.RSS)/1000)
		}
		if at == b.idleTime {
			break
		}
	}
	day := 24 / time.Since(began).Hours()
	for i, l := range loads {
		b.about = l.about
		how := fmt.Sprintf("counted for %v after the load, extrapolated", b.idleTime)
		b.add("context switches in 24 h idle", "", wakeTarget, true, []float64{float64(last[i].Switches()-first[i].Switches()) * day},
			fmt.Sprintf("%s; %d voluntary, %d involuntary", how, last[i].Voluntary-first[i].Voluntary, last[i].Involuntary-first[i].Involuntary))
		b.add("processor time in 24 h idle", "s", noTarget, true, []float64{(last[i].CPU - first[i].CPU).Seconds() * day}, how+"; in steps of 10 ms")
		grows, e := slope(x[i], y[i])
		b.add("growth of the resident memory, idle", "kB/h", growthTarget, true, []float64{grows}, fmt.Sprintf("± %.0f; %d samples in %v", e, len(x[i]), b.idleTime))
		b.add("open files, idle", "", float64(first[i].Files), true, []float64{float64(last[i].Files)}, "at the end; the target is the start")
		b.add("threads, idle", "", float64(first[i].Threads), true, []float64{float64(last[i].Threads)}, "as above")
	}
}

// goroutines does a little more work, ends the daemon and returns how many goroutines it had.
func (b *bench) goroutines(l *load) int {
	few := 4 * l.workers
	b.must(l.work(b.tb.Context(), l.done, l.done+few))
	l.done += few
	b.pause(rest)
	ctx, cancel := context.WithTimeout(b.tb.Context(), fixture.Patience)
	defer cancel()
	n, err := l.daemon.Goroutines(ctx)
	b.must(err)
	return n
}

// count returns the number of objects in a namespace.
func (b *bench) count(kind, namespace string) int {
	list, err := b.cluster.Do(b.tb.Context(), http.MethodGet, lab.Path(kind, namespace, ""), "", nil)
	b.must(err)
	items, _ := list["items"].([]any)
	return len(items)
}
