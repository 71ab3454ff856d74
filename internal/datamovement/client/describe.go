package client

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
)

// Description is what the user can copy with a workflow. An error is nil, or the reason why
// something is not possible or not known. Texts can contain text from the cluster.
type Description struct {
	Node                string // name of the compute node in the cluster
	State, Status       string // of the workflow
	Err                 error  // the workflow cannot be used now; Storage is then empty
	Storage             []Storage
	StorageOmitted      int // how many more there are
	StorageErr          error
	Destinations        []string // paths of global file systems
	DestinationsOmitted int
	DestinationsErr     error
	Limits              Limits
}

// Storage is a mount of the workflow on this node.
type Storage struct {
	Path, Type  string
	Ready       bool  // mounted
	Unsupported bool  // the rabbit cannot copy from this type of file system
	Err         error // nothing can be copied from it now
}

// Limits are the limits for the user; 0: no limit.
type Limits struct {
	Movements, MovementBytes         int64
	MovementsUsed, MovementBytesUsed *int64 // nil: not known
	CreateBurst, CreatesPerSecond    int64
	BatchSize, MessageSize           int64
	Streams, Waiters, Memory         int64
	MaxWait                          time.Duration
}

// ErrOldDaemon is the error of Describe if the daemon does not support it.
var ErrOldDaemon = errors.New("this daemon is too old to describe a workflow")

// Describe returns what the user can copy with the workflow. Its error means that the daemon
// does not tell, or ErrOldDaemon.
func (c *Client) Describe(ctx context.Context) (Description, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	r, err := c.v2.Describe(ctx, &pb2.DescribeRequest{Workflow: c.workflow2()})
	switch {
	case status.Code(err) == codes.Unimplemented:
		return Description{}, ErrOldDaemon
	case err != nil:
		return Description{}, c.explain(err)
	}
	d := Description{
		Node: r.GetNode(), State: r.GetState(), Status: r.GetStatus(), Err: optional(r.GetError()),
		StorageOmitted: int(r.GetStorageOmitted()), StorageErr: optional(r.GetStorageError()),
		DestinationsOmitted: int(r.GetDestinationsOmitted()), DestinationsErr: optional(r.GetDestinationsError()),
		Limits: limits(r.GetLimits()),
	}
	for _, s := range r.GetStorage() {
		d.Storage = append(d.Storage, Storage{
			Path: s.GetPath(), Type: s.GetType(), Ready: s.GetReady(),
			Unsupported: s.GetError().GetReason() == pb2.ErrorReason_FILESYSTEM_NOT_SUPPORTED, Err: optional(s.GetError()),
		})
	}
	for _, to := range r.GetDestinations() {
		d.Destinations = append(d.Destinations, to.GetPath())
	}
	return d, nil
}

// optional returns the error for a problem, nil for nil.
func optional(p *pb2.Problem) error {
	if p == nil {
		return nil
	}
	return problem(p)
}

func limits(l *pb2.Limits) Limits {
	out := Limits{
		Movements: l.GetMovements(), MovementBytes: l.GetMovementBytes(),
		CreateBurst: l.GetCreateBurst(), CreatesPerSecond: l.GetCreatesPerSecond(), BatchSize: l.GetBatchSize(), MessageSize: l.GetMessageSize(),
		Streams: l.GetStreams(), Waiters: l.GetWaiters(), Memory: l.GetMemory(), MaxWait: l.GetMaxWait().AsDuration(),
	}
	if l != nil {
		out.MovementsUsed, out.MovementBytesUsed = l.MovementsUsed, l.MovementBytesUsed
	}
	return out
}
