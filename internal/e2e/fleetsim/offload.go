package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/config"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/client"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/deploy/product"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/kube"
	"github.com/compute-daemons/compute-daemons/internal/unixsocket"
)

const (
	// computesPerRabbit is the number of compute nodes of a rabbit.
	computesPerRabbit = 16
	// eachOffload is the share of the nodes that copy after the other scenarios: 1 of 5.
	eachOffload = 5
	// maxCopies is the largest number of nodes that copy if nothing else is measured.
	maxCopies = 2000
	// batch is the number of data movements of a node.
	batch = 8
	// maxTransfer is the most requests of nnf-dm for one data movement of a batch, from its
	// creation to its end, with those of the first use of the daemon. It sends the most if
	// the server is so slow that the objects of the job must be read for each creation.
	maxTransfer = 6
	// globalRoot is the mount point of the global file system, to which the jobs copy.
	globalRoot = "/lus/global"
)

// mover is nnf-dm on a simulated node, and the job on it.
type mover struct {
	*traffic
	node *simulated
	stop context.CancelFunc
	done chan error
	job  *client.Client

	made []string // the ids of the data movements

	mu    sync.Mutex
	shown map[string]client.Movement // the last status of each, as the job saw it
	runs  map[string]bool            // those that the job saw with progress
	end   time.Time                  // when Follow returned
	err   error
}

// startMover starts the server of nnf-dm on a node, with its default settings. It has no
// watchdog and does not exit when it is idle.
func (f *fleet) startMover(n *simulated, token, workflow string) (*mover, error) {
	host, port, err := net.SplitHostPort(f.server.Address)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(n.dir, "nnf-dm.sock")
	var c server.Configuration
	if _, _, err := config.Load(c.Table(), config.Sources{Args: []string{
		"--config=/dev/null", "--node-name=" + n.name, "--socket=" + socket,
		"--kubernetes-service-host=" + host, "--kubernetes-service-port=" + port,
		"--service-token-file=" + token, "--service-cert-file=" + f.server.Cert,
	}}); err != nil {
		return nil, err
	}
	m := &mover{traffic: newTraffic(), node: n, done: make(chan error, 1), shown: map[string]client.Movement{}, runs: map[string]bool{}}
	k, log := c.Kubernetes, slog.New(&f.errors)
	k.UserAgent, k.Log, k.WrapTransport, k.WrapConn = "fleetsim ("+n.name+")", log, m.wrap, m.wrapConn
	api, err := kube.Dial(k)
	if err != nil {
		return nil, err
	}
	o := c.Service
	if o.Settings, err = c.ServiceSettings(); err != nil {
		return nil, err
	}
	o.Node, o.Client, o.Log = n.name, server.Cluster{Client: api}, log
	t := c.Transport
	if t.Listener, err = unixsocket.Listen(unixsocket.Options{Path: c.Socket.Path, Mode: c.Socket.Mode, Log: log}); err != nil {
		return nil, err
	}
	t.Shutdown, t.Log = func() time.Duration { return c.ShutdownTimeout }, log
	if m.job, err = client.Open(client.Options{Socket: socket, Workflow: workflow, Namespace: "default"}); err != nil {
		return nil, errors.Join(err, t.Listener.Close())
	}
	ctx, stop := context.WithCancel(context.Background())
	m.stop = stop
	go func() { m.done <- server.Serve(ctx, server.New(o), t) }()
	return m, nil
}

// close ends the job and the server.
func (m *mover) close() error {
	err := m.job.Close()
	m.stop()
	err = errors.Join(err, <-m.done)
	m.traffic.close()
	return err
}

// create is the first part of the job: it creates the data movements.
func (m *mover) create(ctx context.Context, mount string) (string, error) {
	r := client.Request{Slots: -1, MaxSlots: -1}
	for i := range batch {
		name := fmt.Sprintf("/%s-%d", m.node.name, i)
		r.Pairs = append(r.Pairs, client.Pair{Source: mount + name, Destination: globalRoot + name})
	}
	made, err := m.job.Copy(ctx, r)
	for _, p := range made.Pairs {
		err = errors.Join(err, p.Err)
		m.made = append(m.made, p.ID)
	}
	return made.Batch, err
}

// follow is the second part of the job: it waits for the end of the data movements.
func (m *mover) follow(ctx context.Context, handle string) {
	last, err := m.job.Follow(ctx, []string{handle}, m.show)
	m.show(last)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.end, m.err = time.Now(), err
}

// show notes what the job sees.
func (m *mover) show(all []client.Movement) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range all {
		m.shown[c.ID] = c
		if c.State == client.Running && c.Percent != nil {
			m.runs[c.ID] = true
		}
	}
}

// state returns the number of data movements that the job has seen, and that it has seen
// with progress, and whether Follow has returned.
func (m *mover) state() (shown, runs int, ended bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.shown), len(m.runs), !m.end.IsZero()
}

// wrong returns what is wrong about the end of the job.
func (m *mover) wrong() (wrong []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil || len(m.made) != batch || len(m.shown) != batch || len(m.runs) != batch {
		wrong = append(wrong, fmt.Sprintf("%s: created %d data movements, saw %d, of which %d with progress: %v", m.node.name, len(m.made), len(m.shown), len(m.runs), m.err))
	}
	for _, id := range m.made {
		if c, ok := m.shown[id]; !ok || !c.Ended() || c.Result != client.Success {
			wrong = append(wrong, fmt.Sprintf("%s: %s ended as %q %q", m.node.name, id, c.State, c.Result))
		}
	}
	return wrong
}

// copying returns the largest number of nodes that copy. Copies of thousands of nodes are measured
// alone.
func (o options) copying() int {
	switch {
	case o.only == onlyCopies:
		return min(o.nodes, maxCopies)
	case o.only == onlyLoad || o.only == "":
		if o.nodes <= large {
			return (o.nodes + eachOffload - 1) / eachOffload
		}
	}
	return 0
}

// copies measures copy offload: the nodes create a batch of data movements each, all at the same
// time, and follow it to its end. The manifests for flow control are installed, as each node has
// only one request in progress.
func (s *simulation) copies(nodes []*simulated) (err error) {
	token := filepath.Join(s.cluster.API().Tokens, "nnf-dm", product.TokenFile)
	job, err := s.site(nodes)
	if err != nil {
		return err
	}
	remove, err := s.applyFlowControl("nnf-dm")
	if err != nil {
		return err
	}
	var movers []*mover
	defer func() {
		for _, m := range movers {
			err = errors.Join(err, m.close())
		}
	}()
	for _, n := range nodes {
		m, err := s.fleet.startMover(n, token, job.name)
		if err != nil {
			return err
		}
		movers = append(movers, m)
	}
	clients := func() (list []*traffic) {
		for _, m := range movers {
			list = append(list, m.traffic)
		}
		return list
	}
	err = s.measureOf(clients, fmt.Sprintf("copy offload, %d copies per node", batch), func(r *row) error {
		r.checks = append(r.checks, healthy, func(r *row) {
			r.each("requests of a batch", func(c counts) bool { return c.requests[create] == batch && c.total() <= maxTransfer*batch })
			for _, m := range movers {
				r.wrong(m.wrong())
			}
		})
		return s.copyAll(r, movers, job.mount)
	})
	if err != nil {
		return err
	}
	if err := remove(); err != nil {
		return err
	}
	if err := s.manager.unmount(s.ctx, nodes); err != nil {
		return err
	}
	if err := s.manager.remove(s.ctx, nodes); err != nil {
		return err
	}
	s.nothingLeft(s.Rows[len(s.Rows)-1])
	return nil
}

// copyAll runs the jobs of all movers. The rabbits start all data movements when all have
// been created, and end them when all jobs have seen them run.
func (s *simulation) copyAll(r *row, movers []*mover, mount string) error {
	rabbits := newRabbits(s.ctx, s.manager.client)
	defer rabbits.close()
	var jobs sync.WaitGroup
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer jobs.Wait()
	defer cancel()
	err := parallel(len(movers), movers, func(m *mover) error {
		handle, err := m.create(ctx, mount)
		if err == nil {
			jobs.Go(func() { m.follow(ctx, handle) })
		}
		return err
	})
	if err != nil {
		return err
	}
	created := time.Since(r.started)
	all := func(what string, ok func(*mover) bool) error {
		return wait.For(ctx, what, func() (bool, error) {
			return !slices.ContainsFunc(movers, func(m *mover) bool {
				_, _, ended := m.state()
				return !ok(m) && !ended
			}), nil
		})
	}
	if err := all("the jobs to follow", func(m *mover) bool { shown, _, _ := m.state(); return shown == batch }); err != nil {
		return err
	}
	if err := rabbits.start(ctx, batch*len(movers)); err != nil {
		return err
	}
	if err := all("the progress that the jobs see", func(m *mover) bool { _, runs, _ := m.state(); return runs == batch }); err != nil {
		return err
	}
	if err := rabbits.finish(ctx); err != nil {
		return err
	}
	jobs.Wait()
	var times []float64
	for _, m := range movers {
		times = append(times, m.end.Sub(rabbits.finished(m.node.name)).Seconds())
	}
	r.setTimes(times, time.Since(r.started).Seconds())
	n := int64(0)
	for _, m := range movers {
		c := m.counts()
		n += c.total()
	}
	r.How = fmt.Sprintf("from the moment when the rabbit sends the last status of a batch until the job of the node has it; all were created after %.1f s; %.2f requests per copy",
		created.Seconds(), float64(n)/float64(batch*len(movers)))
	return nil
}

// offloadJob is the job of the copies.
type offloadJob struct{ name, mount string }

// site creates the objects of the rabbits, and a job with a mounted file system on the given
// nodes.
func (s *simulation) site(nodes []*simulated) (*offloadJob, error) {
	rabbitOf := map[string]string{}
	var names []string
	var storage []any
	for group := range slices.Chunk(s.fleet.nodes, computesPerRabbit) {
		name := fmt.Sprintf("rabbit-%04d", len(names))
		var computes []string
		for _, n := range group {
			computes, rabbitOf[n.name] = append(computes, n.name), name
		}
		names, storage = append(names, name), append(storage, fixture.StorageNode(name, computes...))
	}
	const workflow, user = "offload", 1001
	var uid string
	for _, o := range []lab.Object{
		fixture.SystemConfiguration("default", storage), fixture.FileSystem("global", globalRoot), fixture.MovementProfile("default", true),
		fixture.Workflow(workflow, user),
	} {
		made, err := s.cluster.Apply(s.ctx, o)
		if err != nil {
			return nil, err
		}
		uid = made.String("metadata", "uid")
	}
	job := &offloadJob{workflow, "/mnt/nnf/" + uid + "-0"}
	spec := func(rabbit string, m fixture.MountSpec) fixture.ClientMountSpec {
		m.Type, m.Rabbit = "gfs2", rabbit
		return fixture.ClientMountSpec{Profile: profileName, Workflow: workflow, WorkflowUID: uid, Mounts: []fixture.MountSpec{m}}
	}
	err := parallel(writers, names, func(name string) error {
		o := fixture.ClientMount("offload", name, spec(name, fixture.MountSpec{Path: job.mount + "/" + name + "-0", Device: "reference"}))
		for _, o := range []lab.Object{namespace(name), o} {
			if _, err := s.cluster.Apply(s.ctx, o); err != nil {
				return err
			}
		}
		status := lab.Object{"mounts": []any{map[string]any{"state": "mounted", "ready": true}}, "allReady": true}
		return s.cluster.PatchStatus(s.ctx, "ClientMount", name, "offload", status)
	})
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		n.mounts++
	}
	err = s.manager.create(s.ctx, "offload", nodes, func(n *simulated) fixture.ClientMountSpec {
		return spec(rabbitOf[n.name], fixture.MountSpec{Path: job.mount})
	})
	if err != nil {
		return nil, err
	}
	return job, s.awaitJob(nodes)
}
