package client

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/compute-daemons/compute-daemons/internal/api/datamovement"
	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// KeyMetadata is the metadata key for the request key in version 1. Daemons that do
// not support it ignore it.
const KeyMetadata = "nnf-dm-request-key"

// Pair is a source and its destination.
type Pair struct{ Source, Destination string }

// Request describes copies with the same options.
type Request struct {
	Pairs         []Pair
	Profile       string
	DCPOptions    string
	MPIRunOptions string
	Dryrun        bool
	LogStdout     bool
	StoreStdout   bool
	Slots         int32  // -1: as in the profile
	MaxSlots      int32  // -1: as in the profile
	Key           string // a repeated request with the same key starts no second copy
}

// Made has the result for each pair, in the order of the request.
type Made struct {
	Batch string // id of the batch; empty from a daemon without version 2
	Pairs []MadePair
}

// MadePair is the result for one pair: an id or an error.
type MadePair struct {
	Pair
	ID  string
	Err error
}

// Copy starts copies. Its error concerns all of them; the error of a pair concerns
// this pair only. If the connection to the daemon is lost during the call, Copy
// repeats the call once with the same key, so that nothing is copied twice.
func (c *Client) Copy(ctx context.Context, r Request) (Made, error) {
	var out Made
	err := c.either(func() (err error) { out, err = c.copy2(ctx, r); return err },
		func() (err error) { out, err = c.copy1(ctx, r); return err })
	return out, c.explain(err)
}

func (c *Client) copy2(ctx context.Context, r Request) (Made, error) {
	q := &pb2.CreateBatchRequest{Workflow: c.workflow2(), RequestKey: r.Key, Options: &pb2.CopyOptions{
		Profile: r.Profile, Dryrun: r.Dryrun, DcpOptions: r.DCPOptions, MpirunOptions: r.MPIRunOptions,
		LogStdout: r.LogStdout, StoreStdout: r.StoreStdout, Slots: slots2(r.Slots), MaxSlots: slots2(r.MaxSlots),
	}}
	if q.RequestKey == "" {
		q.RequestKey = "nnf-dmctl-" + rand.Text()
	}
	for _, p := range r.Pairs {
		q.Pairs = append(q.Pairs, &pb2.CopyPair{Source: p.Source, Destination: p.Destination})
	}
	answer, err := c.createBatch(ctx, q)
	if status.Code(err) == codes.Unavailable && c.ConnectError() == nil {
		answer, err = c.createBatch(ctx, q) // the daemon restarts after a stop or an idle exit
	}
	if err != nil {
		return Made{}, err
	}
	if len(answer.GetResults()) != len(r.Pairs) {
		return Made{}, &Error{Kind: Failed, Text: "the number of results from the daemon differs from the number of requested copies"}
	}
	out := Made{Batch: answer.GetUid()}
	for i, p := range answer.GetResults() {
		m := MadePair{Pair: r.Pairs[i], ID: p.GetUid()}
		if p.GetError() != nil || m.ID == "" {
			m.Err = problem(p.GetError())
		}
		out.Pairs = append(out.Pairs, m)
	}
	return out, nil
}

func (c *Client) createBatch(ctx context.Context, q *pb2.CreateBatchRequest) (*pb2.CreateBatchResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime+time.Duration(len(q.GetPairs()))*pairTime)
	defer cancel()
	return c.v2.CreateBatch(ctx, q)
}

func slots2(n int32) *int32 {
	if n == -1 {
		return nil
	}
	return &n
}

func (c *Client) copy1(ctx context.Context, r Request) (Made, error) {
	if r.Key != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, KeyMetadata, r.Key)
	}
	var out Made
	for _, p := range r.Pairs {
		uid, err := c.create1(ctx, r, p)
		if e := (*Error)(nil); err != nil && !errors.As(err, &e) && len(out.Pairs) == 0 {
			return Made{}, err
		}
		out.Pairs = append(out.Pairs, MadePair{p, uid, c.explain(err)})
	}
	return out, nil
}

func (c *Client) create1(ctx context.Context, r Request, p Pair) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	answer, err := c.v1.Create(ctx, &pb.DataMovementCreateRequest{
		Workflow: c.workflow1(), Source: p.Source, Destination: p.Destination, Profile: r.Profile, Dryrun: r.Dryrun,
		DcpOptions: r.DCPOptions, MpirunOptions: r.MPIRunOptions, LogStdout: r.LogStdout, StoreStdout: r.StoreStdout,
		Slots: r.Slots, MaxSlots: r.MaxSlots,
	})
	switch {
	case err != nil:
		return "", err
	case answer.GetStatus() == pb.DataMovementCreateResponse_INVALID:
		return "", &Error{Kind: Invalid, Text: textOr(answer.GetMessage(), pb2.ErrorReason_INVALID_FIELD)}
	case answer.GetStatus() != pb.DataMovementCreateResponse_SUCCESS || answer.GetUid() == "":
		return "", &Error{Kind: Failed, Text: textOr(answer.GetMessage(), 0)}
	}
	return answer.GetUid(), nil
}

// Cancel requests the cancellation of copies. It does not wait until they have ended.
func (c *Client) Cancel(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.explain(c.either(func() error {
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
		return notFound(id)
	case pb.DataMovementCancelResponse_INVALID:
		return &Error{Kind: Invalid, Text: textOr(r.GetMessage(), 0)}
	}
	return &Error{Kind: Failed, Text: textOr(r.GetMessage(), 0)}
}

// Delete deletes the records of copies that have ended.
func (c *Client) Delete(ctx context.Context, ids []string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	return c.explain(c.either(func() error {
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
		return notFound(id)
	case pb.DataMovementDeleteResponse_INVALID:
		return &Error{Kind: Invalid, Text: textOr(r.GetMessage(), 0)}
	case pb.DataMovementDeleteResponse_ACTIVE:
		e := &Error{Kind: Failed, Text: "data movement " + strconv.Quote(id) + " has not ended"}
		return e.with(hints[pb2.ErrorReason_MOVEMENT_ACTIVE])
	}
	return &Error{Kind: Failed, Text: textOr(r.GetMessage(), 0)}
}

// each calls do for every id, even after an error, and returns the first error.
func (c *Client) each(ids []string, do func(string) error) (first error) {
	for _, id := range ids {
		err := c.refuseHandle(id)
		if err == nil {
			err = do(id)
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// refuseHandle returns an error for the id of a batch if there is no workflow: only
// version 2 resolves batches, and it requires the workflow.
func (c *Client) refuseHandle(id string) error {
	if c.o.Workflow != "" || !strings.HasPrefix(id, "batch-") {
		return nil
	}
	e := &Error{Kind: Invalid, Text: "batch " + strconv.Quote(id) + " cannot be resolved without its workflow"}
	return e.with("use --workflow, or set DW_WORKFLOW_NAME")
}
