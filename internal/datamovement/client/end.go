package client

import (
	"context"
	"strings"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Cancel asks for the end of copies and returns at once.
func (c *Client) Cancel(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.explain(c.newest(func() error {
		_, err := c.v2.Cancel(ctx, &pb2.CancelRequest{Workflow: c.workflow2(), Uids: ids})
		return err
	}, func() error { return c.each(ids, func(id string) error { return c.cancel1(ctx, id) }) }))
}

func (c *Client) cancel1(ctx context.Context, id string) error {
	r, err := c.v1.Cancel(ctx, &pb.DataMovementCancelRequest{Workflow: c.workflow1(), Uid: id})
	if err != nil {
		return err
	}
	switch r.GetStatus() {
	case pb.DataMovementCancelResponse_SUCCESS:
		return nil
	case pb.DataMovementCancelResponse_NOT_FOUND:
		return missing(id)
	case pb.DataMovementCancelResponse_INVALID:
		return &Error{Kind: Invalid, Text: text(r.GetMessage(), 0)}
	}
	return &Error{Kind: Failed, Text: text(r.GetMessage(), 0)}
}

// Delete forgets copies that have ended.
func (c *Client) Delete(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.explain(c.newest(func() error {
		_, err := c.v2.Delete(ctx, &pb2.DeleteRequest{Workflow: c.workflow2(), Uids: ids})
		return err
	}, func() error { return c.each(ids, func(id string) error { return c.delete1(ctx, id) }) }))
}

func (c *Client) delete1(ctx context.Context, id string) error {
	r, err := c.v1.Delete(ctx, &pb.DataMovementDeleteRequest{Workflow: c.workflow1(), Uid: id})
	if err != nil {
		return err
	}
	switch r.GetStatus() {
	case pb.DataMovementDeleteResponse_SUCCESS:
		return nil
	case pb.DataMovementDeleteResponse_NOT_FOUND:
		return missing(id)
	case pb.DataMovementDeleteResponse_INVALID:
		return &Error{Kind: Invalid, Text: text(r.GetMessage(), 0)}
	case pb.DataMovementDeleteResponse_ACTIVE:
		reason := pb2.ErrorReason_MOVEMENT_ACTIVE
		return &Error{Kind: Failed, Text: quote(id) + " has not ended", Hint: hints[reason]}
	}
	return &Error{Kind: Failed, Text: text(r.GetMessage(), 0)}
}

// each does something for every id, also after one has failed, and returns the
// first error.
func (c *Client) each(ids []string, do func(string) error) (first error) {
	for _, id := range ids {
		err := c.noHandle(id)
		if err == nil {
			err = do(id)
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// noHandle refuses what only version 2 can resolve.
func (c *Client) noHandle(id string) error {
	if c.o.Workflow != "" || !strings.HasPrefix(id, "batch-") {
		return nil
	}
	return &Error{Kind: Invalid, Text: "the workflow of the batch " + quote(id) + " is not known", Hint: "give --workflow, or set DW_WORKFLOW_NAME"}
}
