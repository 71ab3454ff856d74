package client

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Follow returns when all copies have ended, with how they ended. It calls show,
// if there is one, with all of them whenever something has changed. A daemon
// that goes away meanwhile is waited for: the copies go on without it.
func (c *Client) Follow(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	var out []Movement
	var lost time.Time // since when the daemon is away
	for {
		err := c.newest(func() (err error) { out, err = c.follow2(ctx, ids, show); return err },
			func() (err error) { out, err = c.follow1(ctx, ids, show); return err })
		heard := c.lastHeard()
		if err == nil || ctx.Err() != nil || !passing(err) || heard.IsZero() { // who was never there is not waited for
			return out, c.explain(err)
		}
		if lost.IsZero() || heard.After(lost) {
			lost = time.Now()
		}
		if time.Since(lost) > c.o.Patience {
			return out, c.explain(err)
		}
		if err := pause(ctx, min(c.o.Interval, 200*time.Millisecond)); err != nil {
			return out, c.explain(err)
		}
	}
}

// passing tells whether the daemon may be back soon, or allows no longer wait.
func passing(err error) bool {
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

// follow2 waits for the end by version 2: in one call if nobody looks on.
func (c *Client) follow2(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	if show == nil {
		r, err := c.v2.Wait(ctx, &pb2.WaitRequest{Workflow: c.workflow2(), Uids: ids})
		if status.Code(err) == codes.DeadlineExceeded { // as long as it allows
			c.hear()
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
		c.hear()
		for _, m := range movements2(r.GetMovements()) {
			all[m.ID] = m
		}
		show(slices.SortedFunc(maps.Values(all), byID))
	}
}

func byID(a, b Movement) int { return cmp.Compare(a.ID, b.ID) }

// longPoll is how long a poll that nobody looks at waits at the daemon, seconds.
const longPoll = 30

// follow1 polls. With one copy left the daemon keeps the poll until its end, so
// that it is seen at once.
func (c *Client) follow1(ctx context.Context, ids []string, show func([]Movement)) ([]Movement, error) {
	var last []Movement
	for {
		began := time.Now()
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
			m, err := c.look1(ctx, id, wait)
			if err != nil {
				return last, err
			}
			c.hear()
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
		// Old daemons may answer at once, whatever the wait.
		if err := pause(ctx, max(0, c.o.Interval-time.Since(began))); err != nil {
			return last, err
		}
	}
}

// same tells whether two polls say the same.
func same(a, b Movement) bool {
	return a.State == b.State && a.Result == b.Result && a.Message == b.Message && a.LastMessage == b.LastMessage && a.ElapsedSeconds == b.ElapsedSeconds
}
