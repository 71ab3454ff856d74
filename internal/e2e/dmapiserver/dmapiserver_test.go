// Package dmapiserver is the matrix of troubles with the API server for nnf-dm:
// the daemon as it is released meets a server that is down, slow or wrong,
// credentials that change or lose rights, and its own sudden end. Each test has
// a node, a job, a proxy and a daemon of its own, so that they run side by side.
//
// It must not know how the daemon works: it judges what callers get and when, how
// often the server is asked, and what the administrator reads in the log. The
// rabbit is simulated by writing what a rabbit writes.
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
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

// Tests spend their time waiting, so many fit on a small machine.
func TestMain(m *testing.M) {
	_ = flag.Set("test.parallel", "16")
	os.Exit(world.Main(m))
}

// TestMatrix runs all tests side by side.
func TestMatrix(t *testing.T) {
	for _, group := range []map[string]func(*env){outageTests, watchTests, answerTests, credentialTests, lifeTests} {
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
	// resume is what the daemon may take after the server is back: its longest
	// delay is 30 s, and the machine may be busy.
	resume = 50 * time.Second
	// patient is a caller's deadline.
	patient = 5 * time.Second
)

// env is a node with a job, a proxy in front of the API server, and nnf-dm.
type env struct {
	*world.World
	t      *testing.T
	job    *world.Job
	daemon *lab.Process
	conn   *grpc.ClientConn
	v1     pb.DataMoverClient
	v2     pb2.DataMoverClient
}

func newEnv(t *testing.T) *env {
	t.Helper()
	s := &env{World: world.New(t), t: t}
	s.Site()
	s.job = s.Job("job-"+s.Node, 1001, 0)
	s.Token = filepath.Join(s.Cluster.Dir, "nnf-dm", "service.token")
	s.UseProxy()
	s.conn = s.Dial()
	s.v1, s.v2 = pb.NewDataMoverClient(s.conn), pb2.NewDataMoverClient(s.conn)
	return s
}

// start starts the daemon, which is ready whether there is a server or not:
// no client has asked for anything yet.
func (s *env) start() {
	s.t.Helper()
	s.daemon = s.StartMover()
}

// heal ends whatever was done to the proxy.
func (s *env) heal() {
	s.t.Helper()
	s.Proxy.Clear()
	s.Must(s.Proxy.Accept())
}

// try creates a movement. key may be empty.
func (s *env) try(key string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patient)
	defer cancel()
	if key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, server.KeyMetadata, key)
	}
	r, err := s.v1.Create(ctx, s.job.Request("/out/", "/alice/"))
	if err == nil && r.Status != pb.DataMovementCreateResponse_SUCCESS {
		s.t.Errorf("a trouble of the API server is none of the request: %v", r)
	}
	return r.GetUid(), err
}

// create is try for when all is well.
func (s *env) create() string {
	s.t.Helper()
	uid, err := s.try("")
	if err != nil {
		s.t.Fatal("create: ", err)
	}
	return uid
}

// startRunning starts the daemon, and returns a movement that the rabbit works on.
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
	wait.Within(s.t, resume, "a Create that succeeds", func() (ok bool) {
		var err error
		uid, err = s.try("")
		return err == nil
	})
	return uid
}

// fails tries until a Create fails, and fails the test unless both versions say
// so with the code, in time, in words of ours and none of the server's.
func (s *env) fails(code codes.Code, words string) {
	s.t.Helper()
	began := time.Now()
	_, err := s.try("")
	took := time.Since(began)
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
		s.t.Errorf("Create: %v; want %v, %q", err, code, words)
	}
	if took > patient+2*time.Second {
		s.t.Errorf("Create took %v, its deadline is %v", took, patient)
	}
	ctx, cancel := context.WithTimeout(s.t.Context(), patient)
	defer cancel()
	r := s.job.Request("/out/", "/alice/")
	batch, err := s.v2.CreateBatch(ctx, &pb2.CreateBatchRequest{
		Workflow: &pb2.Workflow{Name: s.job.Name, Namespace: "default"}, Pairs: []*pb2.CopyPair{{Source: r.Source, Destination: r.Destination}},
	})
	// What was read of the workflow is good for a second; then it is each pair that
	// fails.
	pair := batch.GetResults()
	failed := len(pair) == 1 && (code == codes.Internal && pair[0].GetError().GetReason() == pb2.ErrorReason_INTERNAL ||
		code == codes.Unavailable && pair[0].GetError().GetReason() == pb2.ErrorReason_UNAVAILABLE)
	if status.Code(err) != code && !failed {
		s.t.Errorf("CreateBatch: %v %v, want %v", batch, err, code)
	}
	for _, secret := range []string{"lab:", s.Proxy.Address, "serviceaccount"} {
		if strings.Contains(fmt.Sprint(err), secret) {
			s.t.Errorf("callers learn of %q: %v", secret, err)
		}
	}
}

// said waits for a log line with all the texts.
func (s *env) said(texts ...string) {
	s.t.Helper()
	_, err := s.daemon.WaitLog(s.Context(resume), func(l lab.LogLine) bool {
		for _, text := range texts {
			if !strings.Contains(l.Text, text) {
				return false
			}
		}
		return true
	})
	if err != nil {
		s.t.Errorf("no log line with %q: %v", texts, err)
	}
}

// outcome is how a wait has ended.
type outcome struct {
	*pb.DataMovementStatusResponse
	err error
}

// wait waits without end in the background, and returns when the daemon follows
// the movement.
func (s *env) wait(uid string) <-chan outcome {
	s.t.Helper()
	s.followed(uid)
	done := make(chan outcome, 1)
	go func() {
		r, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Workflow: s.job.Ref(), Uid: uid, MaxWaitTime: -1})
		done <- outcome{r, err}
	}()
	return done
}

// followed returns when a movement is known by the watch: asking for it asks the
// server nothing.
func (s *env) followed(uid string) {
	s.t.Helper()
	wait.Within(s.t, resume, "the movement to be followed", func() bool {
		before := s.Proxy.Count(lab.ClassGet)
		_, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid})
		return err == nil && s.Proxy.Count(lab.ClassGet) == before
	})
	s.seen("a watch", func(r *lab.Request) bool { return r.Class == lab.ClassWatch && r.Code() == 200 })
}

// seen waits until a request has got as far as fits says.
func (s *env) seen(what string, fits func(*lab.Request) bool) {
	s.t.Helper()
	wait.Within(s.t, resume, what+" at the API server", func() bool { return slices.ContainsFunc(s.Proxy.Requests(), fits) })
}

// end returns how a wait has ended, or fails the test if it does not.
func (s *env) end(done <-chan outcome) outcome {
	s.t.Helper()
	select {
	case o := <-done:
		return o
	case <-s.Context(resume).Done():
		s.t.Fatal("the wait does not end")
		return outcome{}
	}
}

// ends fails unless a wait has ended with success by now, or soon.
func (s *env) ends(done <-chan outcome) {
	s.t.Helper()
	if o := s.end(done); o.err != nil || o.State != pb.DataMovementStatusResponse_COMPLETED || o.Status != pb.DataMovementStatusResponse_SUCCESS {
		s.t.Errorf("the wait ended with %v %v", o.DataMovementStatusResponse, o.err)
	}
}

// goesOn fails when a wait has ended.
func (s *env) goesOn(done <-chan outcome) {
	s.t.Helper()
	select {
	case o := <-done:
		s.t.Fatalf("the wait ended with %v %v", o.DataMovementStatusResponse, o.err)
	default:
	}
}

// finish is the end of every test: the daemon, which was not restarted for it,
// serves a last movement's life and ends well.
func (s *env) finish() {
	s.t.Helper()
	if s.t.Failed() {
		return
	}
	s.Proxy.ClearRequests()
	uid := s.works()
	done := make(chan outcome, 1)
	go func() {
		r, err := s.v1.Status(s.t.Context(), &pb.DataMovementStatusRequest{Uid: uid, MaxWaitTime: -1})
		done <- outcome{r, err}
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
