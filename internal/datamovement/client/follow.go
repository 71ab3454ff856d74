package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Status returns the state of copies, sorted by id. If the daemon supports version 2,
// an id may be that of a batch.
func (c *Client) Status(ctx context.Context, ids []string) ([]Movement, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.statusOf(ctx, ids)
}

// List returns the state of all copies of the workflow that were started on this node.
func (c *Client) List(ctx context.Context) ([]Movement, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var out []Movement
	err := c.either(func() (err error) { out, err = c.status2(ctx, nil); return err }, func() error {
		list, err := c.v1.List(ctx, &pb.DataMovementListRequest{Workflow: c.workflow1()})
		if err != nil {
			return err
		}
		for _, id := range list.GetUids() {
			m, err := c.status1(ctx, id, 0)
			if e := (*Error)(nil); errors.As(err, &e) && e.Kind == NotFound {
				continue // deleted since the List call
			}
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out, c.explain(err)
}

func (c *Client) statusOf(ctx context.Context, ids []string) ([]Movement, error) {
	var out []Movement
	err := c.either(func() (err error) { out, err = c.status2(ctx, ids); return err }, func() error {
		out = nil
		for _, id := range ids {
			m, err := c.status1(ctx, id, 0)
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out, c.explain(err)
}

// status2 returns the initial statuses of a Watch, sorted by id.
func (c *Client) status2(ctx context.Context, ids []string) ([]Movement, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.v2.Watch(ctx, &pb2.WatchRequest{Workflow: c.workflow2(), Uids: ids})
	if err != nil {
		return nil, err
	}
	header, err := stream.Header()
	if err != nil {
		return nil, err
	}
	count := 0 // if the daemon sends no header: the number in the first message
	if v := header.Get(pb2.HeaderMovements); len(v) > 0 {
		if count, err = strconv.Atoi(v[0]); err != nil {
			return nil, fmt.Errorf("number of copies: %w", err)
		}
	}
	var all []Movement
	for first := true; first || len(all) < count; first = false {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break // a workflow without copies
		}
		if err != nil {
			return nil, err
		}
		all = append(all, movements2(r.GetMovements())...)
	}
	return all, nil
}

func movements2(list []*pb2.MovementStatus) []Movement {
	var out []Movement
	for _, m := range list {
		out = append(out, movement2(m))
	}
	return out
}

// status1 calls Status of version 1, which waits up to wait seconds for the end of
// the copy.
func (c *Client) status1(ctx context.Context, id string, wait int64) (Movement, error) {
	if err := c.refuseHandle(id); err != nil {
		return Movement{}, err
	}
	r, err := c.v1.Status(ctx, &pb.DataMovementStatusRequest{Workflow: c.workflow1(), Uid: id, MaxWaitTime: wait})
	if err != nil {
		return Movement{}, err
	}
	return movement1(id, r)
}

// Follow returns the copies when all have ended. Unless show is nil, Follow calls it
// with all copies whenever one has changed. If the daemon becomes unreachable, Follow
// retries for up to Options.RetryTime: the copies continue without the daemon.
func (c *Client) Follow(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	var out []Movement
	var lost time.Time // when the connection was lost
	for {
		err := c.either(func() (err error) { out, err = c.follow2(ctx, ids, show); return err },
			func() (err error) { out, err = c.follow1(ctx, ids, show); return err })
		responded := c.lastResponseTime()
		if err == nil || ctx.Err() != nil || !transient(err) || responded.IsZero() { // no retry for a daemon that has never responded
			return out, c.explain(err)
		}
		if lost.IsZero() || responded.After(lost) {
			lost = time.Now()
		}
		if time.Since(lost) > c.o.RetryTime {
			return out, c.explain(err)
		}
		if err := pause(ctx, min(c.o.Interval, 200*time.Millisecond)); err != nil {
			return out, c.explain(err)
		}
	}
}

// transient reports whether to repeat the call: the daemon is restarting, or the call
// has reached the daemon's limit for waits.
func transient(err error) bool {
	return status.Code(err) == codes.Unavailable || status.Code(err) == codes.DeadlineExceeded
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// follow2 waits for the end with version 2, in a single call if show is nil.
func (c *Client) follow2(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	if show == nil {
		r, err := c.v2.Wait(ctx, &pb2.WaitRequest{Workflow: c.workflow2(), Uids: ids})
		if status.Code(err) == codes.DeadlineExceeded { // the daemon's limit for waits
			c.recordResponse()
		}
		return movements2(r.GetMovements()), err
	}
	stream, err := c.v2.Watch(ctx, &pb2.WatchRequest{Workflow: c.workflow2(), Uids: ids})
	if err != nil {
		return nil, err
	}
	all := make(map[string]Movement)
	for {
		r, err := stream.Recv()
		now := slices.SortedFunc(maps.Values(all), byID)
		if errors.Is(err, io.EOF) {
			return now, nil
		}
		if err != nil {
			return now, err
		}
		c.recordResponse()
		for _, m := range movements2(r.GetMovements()) {
			all[m.ID] = m
		}
		show(slices.SortedFunc(maps.Values(all), byID))
	}
}

func byID(a, b Movement) int { return cmp.Compare(a.ID, b.ID) }

// longPoll is how long the daemon may delay the response to a poll if show is nil, in
// seconds.
const longPoll = 30

// follow1 polls. If one copy is left, the daemon responds to the poll when this copy
// ends, so that the end is seen immediately.
func (c *Client) follow1(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	var last []Movement
	for {
		start := time.Now()
		active, wait := 0, int64(0)
		for _, m := range last {
			if !m.Ended() {
				active++
			}
		}
		switch {
		case show == nil && len(ids) == 1:
			wait = longPoll
		case active == 1 || len(ids) == 1 && last != nil:
			wait = max(1, int64(c.o.Interval/time.Second))
		}
		var now []Movement
		for i, id := range ids {
			if last != nil && last[i].Ended() {
				now = append(now, last[i])
				continue
			}
			m, err := c.status1(ctx, id, wait)
			if err != nil {
				return last, err
			}
			c.recordResponse()
			now = append(now, m)
		}
		changed := !slices.EqualFunc(last, now, same)
		last = now
		if show != nil && changed {
			show(now)
		}
		if !slices.ContainsFunc(now, func(m Movement) bool { return !m.Ended() }) {
			return now, nil
		}
		// Old daemons may respond immediately, whatever the wait.
		if err := pause(ctx, max(0, c.o.Interval-time.Since(start))); err != nil {
			return last, err
		}
	}
}

// same reports whether two polls have returned the same status.
func same(a, b Movement) bool {
	return a.State == b.State && a.Result == b.Result && a.Message == b.Message && a.LastMessage == b.LastMessage && a.ElapsedSeconds == b.ElapsedSeconds
}
