// Package dmapiserver tests nnf-dm with a failing API server: the built daemon meets a
// server that is down, slow or wrong, credentials that change or lose permissions, and is
// killed itself. Each test has its own node, job, proxy and daemon, so that tests run
// concurrently.
//
// It must not know how the daemon works: it checks the responses to callers and their time,
// the number of requests to the server, and the log. The tests write the statuses that a
// rabbit would write.
package dmapiserver

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement/server"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

// The tests mostly wait, so many of them can run concurrently on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16")
	os.Exit(fixture.Main(m))
}

// TestMatrix runs all tests concurrently.
func TestMatrix(t *testing.T) {
	for _, group := range []map[string]func(*env){outageTests, watchTests, responseTests, credentialTests, lifeTests} {
		for name, test := range group {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newEnv(t)
				test(s)
				s.finish()
			})
		}
	}
}

const (
	// resume is the time limit for the daemon's recovery after the server is back: its
	// longest delay is 30 s, and the machine may be busy.
	resume = 50 * time.Second
	// callLimit is the deadline of a caller.
	callLimit = 5 * time.Second
)

// env is a node with a job, a proxy in front of the API server, and nnf-dm.
type env struct {
	*fixture.Fixture
	t      *testing.T
	job    *fixture.Job
	daemon *lab.Process
	conn   *grpc.ClientConn
	v1     pb.DataMoverClient
	v2     pb2.DataMoverClient
}

func newEnv(t *testing.T) *env {
	t.Helper()
	s := &env{Fixture: fixture.New(t), t: t}
	s.Site()
	s.job = s.Job("job-"+s.Node, 1001, 0)
	s.Token = filepath.Join(s.Cluster.Dir, "nnf-dm", "service.token")
	s.UseProxy()
	s.conn = s.Dial()
	s.v1, s.v2 = pb.NewDataMoverClient(s.conn), pb2.NewDataMoverClient(s.conn)
	return s
}

// start starts the daemon, which becomes ready without the server, because no client has
// sent a request yet.
func (s *env) start() {
	s.t.Helper()
	s.daemon = s.StartMover()
}

// heal removes all faults from the proxy.
func (s *env) heal() {
	s.t.Helper()
	s.Proxy.Clear()
	s.Must(s.Proxy.Accept())
}

// try creates a movement. key may be empty.
func (s *env) try(key string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), callLimit)
	defer cancel()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, server.KeyMetadata, key)
	}
	r, err := s.v1.Create(ctx, s.job.Request("/out/", "/alice/"))
	if err == nil && r.Status != pb.DataMovementCreateResponse_SUCCESS {
		s.t.Errorf("an API server failure is reported as an error of the request: %v", r)
	}
	return r.GetUid(), err
}

// create creates a movement and fails the test on errors.
func (s *env) create() string {
	s.t.Helper()
	uid, err := s.try("")
	if err != nil {
		s.t.Fatal("create: ", err)
	}
	return uid
}

// startRunning starts the daemon and returns a running movement.
func (s *env) startRunning() string {
	s.t.Helper()
	s.start()
	uid := s.create()
	s.Runs(uid)
	return uid
}

// works waits until a Create succeeds again.
func (s *env) works() string {
	s.t.Helper()
	var uid string
	wait.Within(s.t, resume, "a successful Create", func() (ok bool) {
		var err error
		uid, err = s.try("")
		return err == nil
	})
	return uid
}

// fails checks that Create fails in both versions, with the code, in time, and with a text
// that contains nothing from the server.
func (s *env) fails(code codes.Code, words string) {
	s.t.Helper()
	start := time.Now()
	_, err := s.try("")
	took := time.Since(start)
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
		s.t.Errorf("Create: %v; want %v, %q", err, code, words)
	}
	if took > callLimit+30*time.Second {
		s.t.Errorf("Create took %v, its deadline is %v", took, callLimit)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), callLimit)
	defer cancel()
	r := s.job.Request("/out/", "/alice/")
	batch, err := s.v2.CreateBatch(ctx, &pb2.CreateBatchRequest{
		Workflow: &pb2.Workflow{Name: s.job.Name, Namespace: "default"}, Pairs: []*pb2.CopyPair{{Source: r.Source, Destination: r.Destination}},
	})
	// If the workflow is still cached, the error is in the results of the pairs.
	pair := batch.GetResults()
	failed := len(pair) == 1 && (code == codes.Internal && pair[0].GetError().GetReason() == pb2.ErrorReason_INTERNAL ||
		code == codes.Unavailable && pair[0].GetError().GetReason() == pb2.ErrorReason_UNAVAILABLE)
	if status.Code(err) != code && !failed {
		s.t.Errorf("CreateBatch: %v %v, want %v", batch, err, code)
	}
	for _, secret := range []string{"lab:", s.Proxy.Address, "serviceaccount"} {
		if strings.Contains(fmt.Sprint(err), secret) {
			s.t.Errorf("the error contains %q: %v", secret, err)
		}
	}
}

// awaitLog waits for a log line with all the texts.
func (s *env) awaitLog(texts ...string) {
	s.t.Helper()
	if _, err := s.daemon.WaitLog(s.Context(resume), func(l lab.LogLine) bool { return l.Has(texts...) }); err != nil {
		s.t.Errorf("no log line with %q: %v", texts, err)
	}
}

// waitResult is the result of a wait.
type waitResult struct {
	*pb.DataMovementStatusResponse
	err error
}

// wait starts a wait without limit in the background, and returns when the daemon follows
// the movement.
func (s *env) wait(uid string) <-chan waitResult {
	s.t.Helper()
	s.followed(uid)
	done := make(chan waitResult, 1)
	go func() {
		r, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Workflow: s.job.Ref(), Uid: uid, MaxWaitTime: -1})
		done <- waitResult{r, err}
	}()
	return done
}

// followed waits until the watch has delivered a movement: its status then causes no
// request to the server.
func (s *env) followed(uid string) {
	s.t.Helper()
	wait.Within(s.t, resume, "the movement to be followed", func() bool {
		before := s.Proxy.Count(lab.ClassGet)
		_, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid})
		return err == nil && s.Proxy.Count(lab.ClassGet) == before
	})
	s.seen("a watch", func(r *lab.Request) bool { return r.Class == lab.ClassWatch && r.Code() == 200 })
}

// seen waits until match returns true for a request.
func (s *env) seen(what string, match func(*lab.Request) bool) {
	s.t.Helper()
	wait.Within(s.t, resume, what+" at the API server", func() bool { return slices.ContainsFunc(s.Proxy.Requests(), match) })
}

// end returns the result of a wait, or fails the test if the wait does not return.
func (s *env) end(done <-chan waitResult) waitResult {
	s.t.Helper()
	select {
	case o := <-done:
		return o
	case <-s.Context(resume).Done():
		s.t.Fatal("the wait has not ended")
		return waitResult{}
	}
}

// ends fails the test unless a wait ends with success in time.
func (s *env) ends(done <-chan waitResult) {
	s.t.Helper()
	if o := s.end(done); o.err != nil || o.State != pb.DataMovementStatusResponse_COMPLETED || o.Status != pb.DataMovementStatusResponse_SUCCESS {
		s.t.Errorf("the wait ended with %v %v", o.DataMovementStatusResponse, o.err)
	}
}

// continues fails the test if a wait has ended.
func (s *env) continues(done <-chan waitResult) {
	s.t.Helper()
	select {
	case o := <-done:
		s.t.Fatalf("the wait ended with %v %v", o.DataMovementStatusResponse, o.err)
	default:
	}
}

// finish ends every test: the daemon, which is not restarted, must serve one more movement
// until its deletion, and exit with code 0.
func (s *env) finish() {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	s.Proxy.ClearRequests()
	uid := s.works()
	done := make(chan waitResult, 1)
	go func() {
		r, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid, MaxWaitTime: -1})
		done <- waitResult{r, err}
	}()
	s.Runs(uid)
	s.Ends(uid, "Success")
	s.ends(done)
	gone, err := s.v1.Delete(s.t.Context(), &pb.DataMovementDeleteRequest{Workflow: s.job.Ref(), Uid: uid})
	if err != nil || gone.Status != pb.DataMovementDeleteResponse_SUCCESS {
		s.t.Errorf("delete: %v %v", gone, err)
	}
	s.Stop(s.daemon)
}
