package server

import (
	"context"
	"errors"
	"strconv"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// version2 serves version 2 of the protocol: errors are gRPC errors with a reason, and
// one call can handle many movements.
type version2 struct {
	v2.UnimplementedDataMoverServer
	s           *Service
	messageSize int64 // limit of a request in bytes
	memory      int64 // limit of the requests and responses of one user in bytes
}

func (v version2) CreateBatch(ctx context.Context, r *v2.CreateBatchRequest) (*v2.CreateBatchResponse, error) {
	o := r.GetOptions()
	q := datamovement.Request{
		Workflow: workflowV2(r), Profile: o.GetProfile(), Dryrun: o.GetDryrun(),
		DCPOptions: o.GetDcpOptions(), MPIRunOptions: o.GetMpirunOptions(),
		LogStdout: o.GetLogStdout(), StoreStdout: o.GetStoreStdout(), Slots: -1, MaxSlots: -1,
	}
	if o != nil && o.Slots != nil {
		q.Slots = o.GetSlots()
	}
	if o != nil && o.MaxSlots != nil {
		q.MaxSlots = o.GetMaxSlots()
	}
	pairs := make([]pair, 0, len(r.GetPairs()))
	for _, p := range r.GetPairs() {
		pairs = append(pairs, pair{p.GetSource(), p.GetDestination()})
	}
	handle, results, err := v.s.CreateBatch(ctx, callerOf(ctx), q, pairs, r.GetRequestKey())
	if err != nil {
		return nil, errorV2(err)
	}
	out := &v2.CreateBatchResponse{Uid: handle}
	for _, made := range results {
		p := &v2.PairResult{Uid: made.uid}
		if made.err != nil {
			p = &v2.PairResult{Error: datamovement.ProblemV2(made.err)}
		}
		out.Results = append(out.Results, p)
	}
	return out, nil
}

func workflowV2(r interface{ GetWorkflow() *v2.Workflow }) datamovement.WorkflowRef {
	w := r.GetWorkflow()
	return datamovement.WorkflowRef{Name: w.GetName(), Namespace: w.GetNamespace()}
}

// errorV2 returns a gRPC error with code, text and reason.
func errorV2(err error) error {
	f := datamovement.Explain(err)
	if f == nil {
		return nil
	}
	return v2.NewError(f.Reason, clip(f.Error()), f.Metadata())
}

// movementStatus returns the status of a member of a group.
func movementStatus(n snapshot) *v2.MovementStatus {
	switch {
	case n.dm == nil:
		return datamovement.DeletedV2(n.uid)
	case n.tombstone != nil:
		return datamovement.CancelledV2(n.dm, n.tombstone.at)
	}
	return datamovement.StatusV2(n.dm)
}

// Limits of a message of Watch, in statuses and bytes: a stream to a client that does
// not read holds two messages.
const (
	pageStates = 64
	pageBytes  = 16 << 10
)

func (v version2) Watch(r *v2.WatchRequest, stream grpc.ServerStreamingServer[v2.WatchResponse]) error {
	ctx := stream.Context()
	g, err := v.s.group(ctx, callerOf(ctx), workflowV2(r), r.GetUids())
	if err != nil {
		return errorV2(err)
	}
	defer g.release()
	if err := stream.SetHeader(metadata.Pairs(v2.HeaderMovements, strconv.Itoa(len(g.members)))); err != nil {
		return err
	}
	var page []*v2.MovementStatus
	size, sent := 0, false
	var broken error
	send := func() error {
		broken = stream.Send(&v2.WatchResponse{Movements: page})
		page, size, sent = nil, 0, true
		return broken
	}
	err = g.follow(ctx, func(n snapshot) error {
		m := movementStatus(n)
		page = append(page, m)
		if size += proto.Size(m); len(page) < pageStates && size < pageBytes {
			return nil
		}
		return send()
	}, func() error {
		if len(page) == 0 && sent {
			return nil
		}
		return send()
	})
	if broken != nil {
		return broken // gRPC's own error
	}
	return errorV2(err)
}

// errWaited is the error of a wait that has reached MaxWait.
var errWaited = datamovement.NewFault(datamovement.ErrUnavailable, v2.ErrorReason_TIMEOUT, "the data movements have not ended within limits.max_wait of the daemon's configuration: wait again")

func (v version2) Wait(ctx context.Context, r *v2.WaitRequest) (*v2.WaitResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, v.s.settings.Load().MaxWait, errWaited)
	defer cancel()
	g, err := v.s.group(ctx, callerOf(ctx), workflowV2(r), r.GetUids())
	if err != nil {
		return nil, errorV2(err)
	}
	defer g.release()
	err = g.follow(ctx, func(snapshot) error { return nil }, func() error { return nil })
	if err != nil {
		return nil, errorV2(err)
	}
	// If many calls end at the same time, only a few may build their responses.
	size := 0
	for _, m := range g.members {
		size += perStatus + proto.Size(movementStatus(m.shown))
	}
	if err := chargeOf(ctx).reserve(ctx, int64(size)); err != nil {
		v.s.recordNoMemory(callerOf(ctx), "answer", err)
		return nil, errorV2(err)
	}
	out := &v2.WaitResponse{Movements: make([]*v2.MovementStatus, 0, len(g.members))}
	for _, m := range g.members {
		out.Movements = append(out.Movements, movementStatus(m.shown))
	}
	return out, nil
}

// perStatus is the memory that is charged for a status in addition to its encoded form.
const perStatus = 256

func (v version2) Cancel(ctx context.Context, r *v2.CancelRequest) (*v2.CancelResponse, error) {
	uids, err := v.each(ctx, workflowV2(r), r.GetUids(), func(c datamovement.Caller, n snapshot, f *feed) (bool, error) {
		if n.ended() {
			return false, nil
		}
		return true, v.s.cancel(ctx, c, f, n.dm)
	})
	return &v2.CancelResponse{Uids: uids}, errorV2(err)
}

func (v version2) Delete(ctx context.Context, r *v2.DeleteRequest) (*v2.DeleteResponse, error) {
	w := workflowV2(r)
	_, err := v.each(ctx, w, r.GetUids(), func(_ datamovement.Caller, n snapshot, _ *feed) (bool, error) {
		if !n.ended() && (!n.dm.Spec.Cancel || datamovement.Started(n.dm)) {
			return false, datamovement.StillActive(n.uid)
		}
		return true, nil
	})
	if err != nil {
		return nil, errorV2(err)
	}
	uids, err := v.each(ctx, w, r.GetUids(), func(c datamovement.Caller, n snapshot, _ *feed) (bool, error) {
		err := v.s.Delete(ctx, c, w, n.uid)
		if errors.Is(err, datamovement.ErrNotFound) {
			err = nil // another request has deleted it
		}
		return true, err
	})
	return &v2.DeleteResponse{Uids: uids}, errorV2(err)
}

// each calls do for all movements of a group, with their latest state, and returns the
// uids for which do returns true.
func (v version2) each(ctx context.Context, w datamovement.WorkflowRef, names []string, do func(datamovement.Caller, snapshot, *feed) (bool, error)) ([]string, error) {
	c := callerOf(ctx)
	if len(names) == 0 {
		return nil, v.s.fault(c, w.Namespace+"/"+w.Name, datamovement.Invalid("uids", "uids is empty: at least one uid is required"))
	}
	g, err := v.s.group(ctx, c, w, names)
	if err != nil {
		return nil, err
	}
	defer g.release()
	var uids []string
	for _, m := range g.members {
		n, err := g.snapshot(ctx, m, false)
		if err != nil {
			return nil, err
		}
		switch yes, err := do(c, n, m.feed); {
		case err != nil:
			return nil, err
		case yes:
			uids = append(uids, m.uid)
		}
	}
	return uids, nil
}

func (v version2) Describe(ctx context.Context, r *v2.DescribeRequest) (*v2.DescribeResponse, error) {
	out, err := v.s.Describe(ctx, callerOf(ctx), workflowV2(r))
	if err != nil {
		return nil, errorV2(err)
	}
	out.Limits.MessageSize, out.Limits.Memory = v.messageSize, v.memory
	return out, nil
}
