// Package abuse tests the built nnf-dm against malicious users, with the account of an
// installation and a real API server: they access objects of other users, send shell
// syntax, and use more than their share. Each user is a separate process with its own user
// ID, because the daemon trusts only the identity that the kernel reports.
//
// It must not know how the daemon decides: it checks the responses to users, the requests to
// the API server, the command lines in a real shell, and the log of the daemon.
package abuse

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/fixture"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVar); socket != "" {
		os.Exit(actAsUser(socket, os.Stdin, os.Stdout))
	}
	os.Exit(fixture.Main(m))
}

const (
	alice = 1001
	bob   = 1002
)

// env is a node with a proxy in front of the API server, nnf-dm, and two users with
// a job each.
type env struct {
	*fixture.Fixture
	t             *testing.T
	daemon        *lab.Process
	alice, bob    *user
	hers, his     *fixture.Job
	configuration string
}

// newEnv starts the daemon and the users. lines are additional lines of the daemon's
// configuration.
func newEnv(t *testing.T, lines string) *env {
	t.Helper()
	s := &env{Fixture: fixture.New(t), t: t}
	if os.Geteuid() != 0 || s.Features.UserNamespace {
		t.Skip("not run: only root can start processes of other users")
	}
	s.Site()
	s.hers, s.his = s.Job("hers-"+s.Node, alice, 0, 1, 10), s.Job("his-"+s.Node, bob, 0)
	s.UseProxy()
	s.configuration = s.Write("config.toml", []byte("version = 1\n"+lines))
	s.daemon = s.StartMover("--config=" + s.configuration)
	s.alice, s.bob = newUser(t, s.Socket, alice), newUser(t, s.Socket, bob)
	return s
}

// work makes each call of a typical job once.
func (s *env) work(ctx context.Context) error {
	c, w := s.alice.v1(), s.hers.Ref()
	start := time.Now()
	made, err := c.Create(ctx, s.hers.Request("/work/", "/alice/"))
	if err != nil || made.Status != pb.DataMovementCreateResponse_SUCCESS {
		return fmt.Errorf("create: %v %w", made, err)
	}
	took := time.Since(start)
	status, err := c.Status(ctx, &pb.DataMovementStatusRequest{Workflow: w, Uid: made.Uid})
	if err != nil || status.State != pb.DataMovementStatusResponse_PENDING {
		return fmt.Errorf("status: %v %w", status, err)
	}
	list, err := c.List(ctx, &pb.DataMovementListRequest{Workflow: w})
	if err != nil || !slices.Contains(list.Uids, made.Uid) {
		return fmt.Errorf("list: %v %w", list, err)
	}
	cancelled, err := c.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: w, Uid: made.Uid})
	if err != nil || cancelled.Status != pb.DataMovementCancelResponse_SUCCESS {
		return fmt.Errorf("cancel: %v %w", cancelled, err)
	}
	deleted, err := c.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: w, Uid: made.Uid})
	if err != nil || deleted.Status != pb.DataMovementDeleteResponse_SUCCESS {
		return fmt.Errorf("delete: %v %w", deleted, err)
	}
	s.t.Logf("alice's Create took %v, the whole %v", took, time.Since(start))
	return nil
}

func (s *env) usage(t *testing.T) lab.Usage {
	t.Helper()
	u, err := s.daemon.Usage()
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// highest samples the daemon's memory until the returned function is called, which returns
// the maximum.
func (s *env) highest(t *testing.T) func() int64 {
	stop, done := make(chan struct{}), make(chan int64)
	go func() {
		var top lab.Usage
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			if u, err := s.daemon.Usage(); err == nil && u.RSS > top.RSS {
				top = u
			}
			select {
			case <-tick.C:
			case <-stop:
				t.Logf("the daemon's memory: at most %.1f MB with %d files", float64(top.RSS)/1e6, top.Files)
				done <- top.RSS
				return
			}
		}
	}()
	return func() int64 { close(stop); return <-done }
}

// settles checks that the daemon releases its resources: descriptors immediately, memory
// when it is idle.
func (s *env) settles(t *testing.T, before lab.Usage) {
	t.Helper()
	var now lab.Usage
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if wait.For(ctx, "files and memory", func() (bool, error) {
		now = s.usage(t)
		return now.Files <= before.Files+2 && now.RSS <= before.RSS+16<<20, nil
	}) == nil {
		t.Logf("afterwards: %.1f MB, %d files, %d threads", float64(now.RSS)/1e6, now.Files, now.Threads)
		return
	}
	t.Errorf("the daemon had %.1f MB and %d files before, and %.1f MB and %d after", float64(before.RSS)/1e6, before.Files, float64(now.RSS)/1e6, now.Files)
}
