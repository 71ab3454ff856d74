package client

import (
	"context"
	"errors"
	"io"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Status tells how far copies are, sorted by id. An id may be a batch's handle
// if the daemon has version 2.
func (c *Client) Status(ctx context.Context, ids []string) ([]Movement, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.look(ctx, ids)
}

// List is Status for all copies of the workflow that this node has made.
func (c *Client) List(ctx context.Context) ([]Movement, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	var out []Movement
	err := c.newest(func() (err error) { out, err = c.look2(ctx, nil); return err }, func() error {
		list, err := c.v1.List(ctx, &pb.DataMovementListRequest{Workflow: c.workflow1()})
		if err != nil {
			return err
		}
		for _, id := range list.GetUids() {
			m, err := c.look1(ctx, id, 0)
			if e := (*Error)(nil); errors.As(err, &e) && e.Kind == NotFound {
				continue // deleted in between
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

func (c *Client) look(ctx context.Context, ids []string) ([]Movement, error) {
	var out []Movement
	err := c.newest(func() (err error) { out, err = c.look2(ctx, ids); return err }, func() error {
		out = nil
		for _, id := range ids {
			m, err := c.look1(ctx, id, 0)
			if err != nil {
				return err
			}
			out = append(out, m)
		}
		return nil
	})
	return out, c.explain(err)
}

// look2 takes the first answer of a Watch, which has the state of all.
func (c *Client) look2(ctx context.Context, ids []string) ([]Movement, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := c.v2.Watch(ctx, &pb2.WatchRequest{Workflow: c.workflow2(), Uids: ids})
	if err != nil {
		return nil, err
	}
	r, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, nil // a workflow without copies
	}
	if err != nil {
		return nil, err
	}
	return movements2(r.GetMovements()), nil
}

func movements2(list []*pb2.MovementStatus) []Movement {
	var out []Movement
	for _, m := range list {
		out = append(out, movement2(m))
	}
	return out
}

// look1 asks version 1, with a wait for the end of so many seconds.
func (c *Client) look1(ctx context.Context, id string, wait int64) (Movement, error) {
	if err := c.noHandle(id); err != nil {
		return Movement{}, err
	}
	r, err := c.v1.Status(ctx, &pb.DataMovementStatusRequest{Workflow: c.workflow1(), Uid: id, MaxWaitTime: wait})
	if err != nil {
		return Movement{}, err
	}
	return movement1(id, r)
}
