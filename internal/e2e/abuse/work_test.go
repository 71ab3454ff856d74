package abuse

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	"github.com/compute-daemons/compute-daemons/internal/e2e/lab"
	"github.com/compute-daemons/compute-daemons/internal/e2e/wait"
)

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
