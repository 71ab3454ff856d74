package main

import (
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/figures"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// Users of the node: the owner of the job, and another user.
const (
	jobUser = 1001
	crowder = 2002
)

// warmCreates is the number of creations that are counted. Their requests stay below the
// rate limit of the daemon, which would delay them.
const warmCreates = 20

// copies is a node with a job. The benchmark writes the status in place of a rabbit.
type copies struct {
	*bench
	*fixture.Fixture
	job     *fixture.Job
	daemons int
}

func (b *bench) newCopies() *copies {
	w := fixture.On(b.tb, b.Lab, b.cluster)
	w.Site()
	return &copies{bench: b, Fixture: w, job: w.Job("copyjob", jobUser, 0)}
}

// mover starts a daemon with its own socket and waits for READY.
func (s *copies) mover(flags ...string) *mover {
	s.daemons++
	m := &mover{copies: s, socket: filepath.Join(s.Files, fmt.Sprintf("nnf-dm-%d.sock", s.daemons))}
	m.Process = s.StartMover(append([]string{"--socket=" + m.socket}, flags...)...)
	return m
}

// mover is an nnf-dm process with the path of its socket.
type mover struct {
	*copies
	*lab.Process
	socket string
}

// client connects as a user, until the end of the benchmark.
func (m *mover) client(uid int) pb.DataMoverClient {
	conn, c, err := dial(uid, m.socket)
	m.must(err)
	m.tb.Cleanup(func() { conn.Close() })
	return c
}

// create creates a data movement and returns its UID.
func (s *copies) create(c pb.DataMoverClient) string {
	r, err := c.Create(s.tb.Context(), s.job.Request("/out/", "/alice/"))
	if err != nil || r.Status != pb.DataMovementCreateResponse_SUCCESS {
		s.tb.Fatalf("create: %v %v", r, err)
	}
	return r.Uid
}

// poll requests the status, and waits for the end for at most the given seconds.
func (s *copies) poll(c pb.DataMoverClient, uid string, seconds int64) (*pb.DataMovementStatusResponse, error) {
	r, err := c.Status(s.tb.Context(), &pb.DataMovementStatusRequest{Workflow: s.job.Ref(), Uid: uid, MaxWaitTime: seconds})
	if err == nil && r.Status == pb.DataMovementStatusResponse_NOT_FOUND {
		err = fmt.Errorf("%s is not found", uid)
	}
	return r, err
}

// activate measures how long a client waits if no daemon runs: the client connects to the
// socket before the daemon is started.
func (s *copies) activate() {
	path := filepath.Join(s.Files, "activated.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	s.must(err)
	defer l.Close()
	s.must(os.Chmod(path, 0o666))
	file, err := l.File()
	s.must(err)
	defer file.Close()
	var answers, creates []float64
	for range s.starts {
		conn, c, err := dial(jobUser, path)
		s.must(err)
		conn.Connect()
		spec := s.Spec(lab.Spec{Program: "nnf-dm", Listen: file})
		spec.Args = slices.DeleteFunc(spec.Args, func(a string) bool { return a == "--socket="+s.Socket })
		d := lab.Start(s.tb, s.bench.Lab, spec)
		_, err = c.Version(s.tb.Context(), new(emptypb.Empty), grpc.WaitForReady(true))
		s.must(err)
		answers = append(answers, milliseconds(time.Since(d.Started)))
		s.create(c)
		creates = append(creates, milliseconds(time.Since(d.Started)))
		s.Stop(d)
		conn.Close()
	}
	s.add("exec to first response", "ms", 60, false, answers, "socket activation; from before fork until a waiting client has its response")
	s.add("exec to first create", "ms", noTarget, false, creates, "as above, until the response to a create that follows immediately")
}

// requests counts the requests to the API server for each call, through a proxy.
func (s *copies) requests() {
	direct := s.API
	p := s.UseProxy()
	defer func() { s.API = direct }()
	m := s.mover()
	c := m.client(jobUser)
	s.add("requests at start", "", 0, true, []float64{float64(p.Count())}, "until READY, counted by a proxy")
	uid := s.create(c)
	s.add("requests of the first create", "", noTarget, true, []float64{float64(p.Count())}, "includes everything that is cached for the next ones")
	// Creations share cached reads of the workflow and the mounts, so the average of many
	// is counted.
	p.ClearRequests()
	for range warmCreates {
		uid = s.create(c)
	}
	each := []float64{float64(p.Count()) / warmCreates}
	s.add("requests per create, warm", "", 2, true, each, fmt.Sprintf("%d in a loop: one for the object; once per second for the workflow and the mounts of compute node and rabbit", warmCreates))
	s.createRate(c)
	// The first poll starts the watch. It has started when it has delivered a change.
	s.settled(c, uid)
	p.ClearRequests()
	s.timePolls(c, uid)
	perPoll := float64(p.Count()) / float64(s.polls)
	s.add("requests per poll", "", 0, true, []float64{perPoll}, fmt.Sprintf("%d sequential polls of one transfer", s.polls))
	s.Stop(m.Process)
}

// createRate creates movements in a loop, after the burst of the rate limit is used up.
func (s *copies) createRate(c pb.DataMoverClient) {
	const n = 50
	var rates []float64
	for i := range 5 {
		began := time.Now()
		for range n {
			s.create(c)
		}
		if i >= 2 { // the first 100 are the burst
			rates = append(rates, n/time.Since(began).Seconds())
		}
	}
	s.addLeast("creates per second, one user in a loop", "", 40, rates, "with the default kubernetes.qps, after its burst")
}

// settled waits until the daemon has received a change through its watch.
func (s *copies) settled(c pb.DataMoverClient, uid string) {
	for i := range 2 {
		s.SetMovement(uid, lab.Object{"startTime": fixture.Stamp(time.Now()), "state": "Running", "commandStatus": map[string]any{"progress": 10 + i}})
		wait.Within(s.tb, 30*time.Second, "the status of the rabbit at the daemon", func() bool {
			r, err := s.poll(c, uid, 0)
			s.must(err)
			return r.GetCommandStatus().GetProgress() == int32(10+i)
		})
	}
}

// times measures calls of a daemon that is connected to the API server directly. The
// daemon is then measured idle.
func (s *copies) times() *subject {
	m := s.mover()
	conn, c, err := dial(jobUser, m.socket)
	s.must(err)
	defer conn.Close()
	uid := s.create(c)
	var creates []float64
	for range warmCreates {
		began := time.Now()
		uid = s.create(c)
		creates = append(creates, milliseconds(time.Since(began)))
	}
	s.add("create, warm", "ms", noTarget, false, creates, "call to response; the API server takes up to 100 ms for a consistent list")
	s.settled(c, uid)
	polls := s.timePolls(c, uid)
	how := "call to response, sequential, one connection"
	s.add("status, p50", "ms", noTarget, false, polls, how)
	s.add("status, p99", "ms", 5, false, []float64{figures.Quantile(polls, 0.99)}, "the same")
	s.wakeUps(c, uid)
	how = fmt.Sprintf("after %d creates, %d polls, %d waits, no client connected", warmCreates+1, s.polls, s.waits)
	return &subject{about: nnfDM, what: "used daemon", daemon: m.Process, how: how}
}

// timePolls requests the status repeatedly and returns the times.
func (s *copies) timePolls(c pb.DataMoverClient, uid string) (took []float64) {
	for range s.polls {
		began := time.Now()
		_, err := s.poll(c, uid, 0)
		s.must(err)
		took = append(took, milliseconds(time.Since(began)))
	}
	return took
}

// startTime is the time for a wait to start before the final status is written. A wait
// that has not started is measured as well, from the write.
const startTime = 15 * time.Millisecond

// wakeUps measures the time from the final status of the rabbit until a waiting client has
// the response. The transfers are copies of one that the daemon has created.
func (s *copies) wakeUps(c pb.DataMoverClient, model string) {
	o := s.Movement(model)
	var woken, written []float64
	for i := range s.waits {
		uid := fmt.Sprintf("nnf-dm-node-wait-%d", i)
		labels, _ := o.At("metadata", "labels").(map[string]any)
		s.Apply(lab.Object{
			"apiVersion": o["apiVersion"], "kind": o["kind"], "spec": o["spec"],
			"metadata": map[string]any{"name": uid, "namespace": s.Rabbit, "labels": maps.Clone(labels)},
		})
		wake, write := s.wait(c, uid)
		woken, written = append(woken, wake), append(written, write)
	}
	how := "from sending the final status of the rabbit until the waiting client has the response"
	s.add("wake-up of a wait, p50", "ms", noTarget, false, woken, how)
	s.add("wake-up of a wait, p99", "ms", 20, false, []float64{figures.Quantile(woken, 0.99)}, "as above; includes the write of the status:")
	s.add("  write of the status, p50", "ms", noTarget, false, written, "request to response; not the daemon's")
}

func (s *copies) wait(c pb.DataMoverClient, uid string) (woken, written float64) {
	type end struct {
		at  time.Time
		err error
	}
	ended := make(chan end, 1)
	go func() {
		r, err := s.poll(c, uid, 60)
		if err == nil && r.State != pb.DataMovementStatusResponse_COMPLETED {
			err = fmt.Errorf("the wait for %s ended with %v", uid, r)
		}
		ended <- end{time.Now(), err}
	}()
	s.pause(startTime)
	began := time.Now()
	s.Ends(uid, "Success")
	after := time.Now()
	e := <-ended
	s.must(e.err)
	return milliseconds(e.at.Sub(began)), milliseconds(after.Sub(began))
}

// withClients starts a daemon with n clients that have requested its version and keep the
// connection, as libraries do.
func (s *copies) withClients(n int) *subject {
	m := s.mover()
	if n == 0 {
		return &subject{about: nnfDM, what: "no client", daemon: m.Process, resident: 13, anonymous: 3, switches: 8}
	}
	var conns []*grpc.ClientConn
	for range n {
		conn, c, err := dial(jobUser, m.socket)
		s.must(err)
		conns = append(conns, conn)
		_, err = c.Version(s.tb.Context(), new(emptypb.Empty))
		s.must(err)
	}
	end := func() {
		for _, c := range conns {
			c.Close()
		}
	}
	return &subject{about: nnfDM, what: fmt.Sprintf("%d clients", n), daemon: m.Process, resident: 40, switches: 8, end: end}
}

// crowded measures calls of one user while another user has many connections: with the
// default limits, and with raised limits.
func (s *copies) crowded() {
	raised := s.Settings("[limits]", fmt.Sprintf("connections = %d", s.connections+100), fmt.Sprintf("connections_per_user = %d", s.connections+10))
	for _, k := range []struct{ what, config string }{
		{"default limits", "--config=" + os.DevNull}, {"limits raised", raised},
	} {
		m := s.mover(k.config)
		s.crowd(m, k.what)
		s.Stop(m.Process)
	}
}

func (s *copies) crowd(m *mover, what string) {
	held, err := idlers(crowder, s.connections, m.socket)
	s.must(err)
	defer held.close()
	c := m.client(jobUser)
	uid := s.create(c)
	s.settled(c, uid)
	polls := s.timePolls(c, uid)
	s.add("status among idle connections, p99, "+what, "ms", 5, false, []float64{figures.Quantile(polls, 0.99)},
		fmt.Sprintf("another user opened %d connections, %d were accepted; maximum %s ms", s.connections, len(held), number(slices.Max(polls))))
	u, err := m.Usage()
	s.must(err)
	s.add("memory resident then, "+what, "MB", noTarget, true, []float64{float64(u.RSS) / 1e6}, fmt.Sprintf("%d connections", len(held)))
}
