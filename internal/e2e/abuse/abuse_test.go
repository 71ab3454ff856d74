// Package abuse tests users who mean harm against nnf-dm as it is released,
// with the account of an installation and a real API server: they ask for what
// is not theirs, write what a shell on the rabbit would obey, and take more than
// their share. Each user is a process of its own with an identity of its own,
// for the daemon trusts only the identity that the kernel reports.
//
// It must not know how the daemon decides: it compares what users get with what
// they should, with what the API server was asked, with what a real shell makes
// of the objects, and with what the daemon's log says of it.
package abuse

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
	"github.com/compute-daemons/compute-daemons/internal/e2e/world"
)

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketVar); socket != "" {
		os.Exit(actAsUser(socket, os.Stdin, os.Stdout))
	}
	os.Exit(world.Main(m))
}

const (
	alice = 1001
	bob   = 1002
)

// env is a node with a proxy in front of the API server, nnf-dm, and two users with
// a job each.
type env struct {
	*world.World
	t             *testing.T
	daemon        *lab.Process
	alice, bob    *user
	hers, his     *world.Job
	configuration string
}

// newEnv starts all. lines are further lines of the daemon's configuration.
func newEnv(t *testing.T, lines string) *env {
	t.Helper()
	s := &env{World: world.New(t), t: t}
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

// work is what a job does, each call of it once.
func (s *env) work(ctx context.Context) error {
	c, w := s.alice.v1(), s.hers.Ref()
	began := time.Now()
	made, err := c.Create(ctx, s.hers.Request("/work/", "/alice/"))
	if err != nil || made.Status != pb.DataMovementCreateResponse_SUCCESS {
		return fmt.Errorf("create: %v %w", made, err)
	}
	took := time.Since(began)
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
	s.t.Logf("alice's Create took %v, the whole %v", took, time.Since(began))
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

// highest looks at the daemon's memory until it is called, and returns the most
// that it has had.
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

// settles fails unless the daemon gives back what it took: descriptors at once,
// memory when it has looked for it.
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
	t.Errorf("the daemon had %.1f MB and %d files, and still has %.1f MB and %d", float64(before.RSS)/1e6, before.Files, float64(now.RSS)/1e6, now.Files)
}
