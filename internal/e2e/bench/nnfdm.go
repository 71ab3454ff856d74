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
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Users of the node. The job is one user's; the others have nothing to do with it.
const (
	jobUser = 1001
	crowder = 2002
)

// warmCreates is how many creations are counted: together they stay below the
// daemon's own limit of requests to the API server, which would slow them down.
const warmCreates = 20

// copies is a node with a job. The bench itself writes what a rabbit would.
type copies struct {
	*bench
	*world.World
	job     *world.Job
	daemons int
}

func (b *bench) newCopies() *copies {
	w := world.On(b.tb, b.Lab, b.cluster)
	w.Site()
	return &copies{bench: b, World: w, job: w.Job("copyjob", jobUser, 0)}
}

// mover starts a daemon with a socket of its own and waits for READY.
func (s *copies) mover(flags ...string) *mover {
	s.daemons++
	m := &mover{copies: s, socket: filepath.Join(s.Files, fmt.Sprintf("nnf-dm-%d.sock", s.daemons))}
	m.Process = s.StartMover(append([]string{"--socket=" + m.socket}, flags...)...)
	return m
}

// mover is one nnf-dm with the path of its socket.
type mover struct {
	*copies
	*lab.Process
	socket string
}

// client connects as a user, until the bench ends.
func (m *mover) client(uid int) pb.DataMoverClient {
	conn, c, err := dial(uid, m.socket)
	m.must(err)
	m.tb.Cleanup(func() { conn.Close() })
	return c
}

// create makes a data movement and returns its uid.
func (s *copies) create(c pb.DataMoverClient) string {
	r, err := c.Create(s.tb.Context(), s.job.Request("/out/", "/alice/"))
	if err != nil || r.Status != pb.DataMovementCreateResponse_SUCCESS {
		s.tb.Fatalf("create: %v %v", r, err)
	}
	return r.Uid
}

// poll asks for the status, and waits for the end as long as is said.
func (s *copies) poll(c pb.DataMoverClient, uid string, seconds int64) (*pb.DataMovementStatusResponse, error) {
	r, err := c.Status(s.tb.Context(), &pb.DataMovementStatusRequest{Workflow: s.job.Ref(), Uid: uid, MaxWaitTime: seconds})
	if err == nil && r.Status == pb.DataMovementStatusResponse_NOT_FOUND {
		err = fmt.Errorf("%s is not found", uid)
	}
	return r, err
}

// activate measures what a client waits that comes while no daemon runs: the
// socket is there, the client connects, and only then the daemon is started.
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
	s.add("exec to first answer", "ms", 60, false, answers, "socket activation; from before fork until a client that was there first has its answer")
	s.add("exec to first create", "ms", noTarget, false, creates, "the same until a create right after that is answered")
}

// requests counts, through a proxy, what calls cost the API server.
func (s *copies) requests() {
	direct := s.API
	p := s.UseProxy()
	defer func() { s.API = direct }()
	m := s.mover()
	c := m.client(jobUser)
	s.add("requests at start", "", 0, true, []float64{float64(p.Count())}, "until READY, counted by a proxy")
	uid := s.create(c)
	s.add("requests of the first create", "", noTarget, true, []float64{float64(p.Count())}, "with all that is remembered for the next ones")
	// Creations share what is read of the workflow and the mounts, so single ones do
	// not say what they cost.
	p.ClearRequests()
	for range warmCreates {
		uid = s.create(c)
	}
	each := []float64{float64(p.Count()) / warmCreates}
	s.add("requests per create, warm", "", 2, true, each, fmt.Sprintf("%d in a loop: the object; once a second workflow, mounts of compute and rabbit", warmCreates))
	s.createRate(c)
	// The first poll starts the watch; when that has started is known when it has
	// shown a change.
	s.settled(c, uid)
	p.ClearRequests()
	s.timePolls(c, uid)
	perPoll := float64(p.Count()) / float64(s.polls)
	s.add("requests per poll", "", 0, true, []float64{perPoll}, fmt.Sprintf("%d polls of one transfer, one after another", s.polls))
	s.Stop(m.Process)
}

// createRate creates in a loop, after as many as the daemon may send at once.
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
	s.addLeast("creates per second, one user in a loop", "", 40, rates, "with the default kubernetes.qps, its burst used up")
}

// settled returns when the daemon has seen a change through its watch.
func (s *copies) settled(c pb.DataMoverClient, uid string) {
	for i := range 2 {
		s.SetMovement(uid, lab.Object{"startTime": world.Stamp(time.Now()), "state": "Running", "commandStatus": map[string]any{"progress": 10 + i}})
		wait.Within(s.tb, 30*time.Second, "the rabbit's report at the daemon", func() bool {
			r, err := s.poll(c, uid, 0)
			s.must(err)
			return r.GetCommandStatus().GetProgress() == int32(10+i)
		})
	}
}

// times measures calls on a daemon that speaks to the API server itself, and
// leaves it alone afterwards as the used one.
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
	s.add("create, warm", "ms", noTarget, false, creates, "call to answer; the API server takes up to 100 ms for a list of which it makes sure")
	s.settled(c, uid)
	polls := s.timePolls(c, uid)
	how := "call to answer, one connection, one after another"
	s.add("status, p50", "ms", noTarget, false, polls, how)
	s.add("status, p99", "ms", 5, false, []float64{quantile(polls, 0.99)}, "the same")
	s.wakeUps(c, uid)
	how = fmt.Sprintf("after %d creates, %d polls, %d waits, no client connected", warmCreates+1, s.polls, s.waits)
	return &subject{about: nnfDM, what: "used daemon", daemon: m.Process, how: how}
}

// timePolls asks for the status again and again.
func (s *copies) timePolls(c pb.DataMoverClient, uid string) (took []float64) {
	for range s.polls {
		began := time.Now()
		_, err := s.poll(c, uid, 0)
		s.must(err)
		took = append(took, milliseconds(time.Since(began)))
	}
	return took
}

// begins is the time for a wait to have started before its end is written. One
// that has not yet is measured all the same, from the writing.
const begins = 15 * time.Millisecond

// wakeUps measures how long after the rabbit's report a waiting client has the
// answer. The transfers are copies of one that the daemon has made.
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
	how := "from sending the rabbit's last report until the waiting client has the answer"
	s.add("wake-up of a wait, p50", "ms", noTarget, false, woken, how)
	s.add("wake-up of a wait, p99", "ms", 20, false, []float64{quantile(woken, 0.99)}, "the same; in it, until the API server has the report:")
	s.add("  the report itself, p50", "ms", noTarget, false, written, "request to answer; not the daemon's")
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
	s.pause(begins)
	began := time.Now()
	s.Ends(uid, "Success")
	after := time.Now()
	e := <-ended
	s.must(e.err)
	return milliseconds(e.at.Sub(began)), milliseconds(after.Sub(began))
}

// withClients is a fresh daemon to which clients are connected that have asked
// for its version and keep the connection, as libraries do.
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

// crowded measures what one user's calls take while another holds many
// connections: as many as the defaults allow, and as many as wanted.
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
	s.add("status among idle connections, p99, "+what, "ms", 5, false, []float64{quantile(polls, 0.99)},
		fmt.Sprintf("another user has opened %d, %d were let in; worst %s ms", s.connections, len(held), number(slices.Max(polls))))
	u, err := m.Usage()
	s.must(err)
	s.add("memory resident then, "+what, "MB", noTarget, true, []float64{float64(u.RSS) / 1e6}, fmt.Sprintf("%d connections", len(held)))
}
