package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// version2 speaks version 2 of the protocol: errors are gRPC errors with a
// reason, and many movements are handled in one call.
type version2 struct {
	pb2.UnimplementedDataMoverServer
	s *Service
}

func (v version2) CreateBatch(ctx context.Context, r *pb2.CreateBatchRequest) (*pb2.CreateBatchResponse, error) {
	o := r.GetOptions()
	q := datamovement.Request{
		Workflow: datamovement.WorkflowV2(r.GetWorkflow()), Profile: o.GetProfile(), Dryrun: o.GetDryrun(),
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
	handle, results, err := v.s.CreateBatch(ctx, callOf(ctx), q, pairs, r.GetRequestKey())
	if err != nil {
		return nil, typedError(err)
	}
	out := &pb2.CreateBatchResponse{Uid: handle}
	for _, m := range results {
		p := &pb2.PairResult{Uid: m.uid}
		if f := datamovement.Explain(m.err); f != nil {
			reason, meta := reasonOf(f)
			p = &pb2.PairResult{Error: &pb2.Problem{Reason: reason, Message: f.Error(), Metadata: meta}}
		}
		out.Results = append(out.Results, p)
	}
	return out, nil
}

// A message of Watch has no more than so many statuses, and few bytes: a stream
// whose client does not read holds two of them.
const (
	pageStates = 64
	pageBytes  = 16 << 10
)

func (v version2) Watch(r *pb2.WatchRequest, stream grpc.ServerStreamingServer[pb2.WatchResponse]) error {
	ctx := stream.Context()
	g, err := v.s.group(ctx, callOf(ctx), datamovement.WorkflowV2(r.GetWorkflow()), r.GetUids())
	if err != nil {
		return typedError(err)
	}
	defer g.release()
	var page []*pb2.MovementStatus
	size, sent := 0, false
	var lost error
	send := func() error {
		lost = stream.Send(&pb2.WatchResponse{Movements: page})
		page, size, sent = nil, 0, true
		return lost
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
	if lost != nil {
		return lost // gRPC's own error
	}
	return typedError(err)
}

// errWaited is the cause when the daemon allows no longer wait.
var errWaited = datamovement.NewFault(datamovement.ErrUnavailable, datamovement.ReasonTimeout, "the data movements have not ended in the time that limits.max_wait of the daemon's configuration allows: wait again")

func (v version2) Wait(ctx context.Context, r *pb2.WaitRequest) (*pb2.WaitResponse, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, v.s.settings.Load().MaxWait, errWaited)
	defer cancel()
	g, err := v.s.group(ctx, callOf(ctx), datamovement.WorkflowV2(r.GetWorkflow()), r.GetUids())
	if err != nil {
		return nil, typedError(err)
	}
	defer g.release()
	err = g.follow(ctx, func(snapshot) error { return nil }, func() error { return nil })
	if err != nil {
		return nil, typedError(err)
	}
	// If many calls end at once, only a few may build their answers.
	size := 0
	for _, m := range g.members {
		size += perStatus + proto.Size(movementStatus(m.shown))
	}
	if err := tabOf(ctx).order(ctx, int64(size)); err != nil {
		v.s.recordNoRoom(callOf(ctx), "answer", err)
		return nil, typedError(err)
	}
	out := &pb2.WaitResponse{Movements: make([]*pb2.MovementStatus, 0, len(g.members))}
	for _, m := range g.members {
		out.Movements = append(out.Movements, movementStatus(m.shown))
	}
	return out, nil
}

// perStatus is what a status is taken to cost beside its encoded form.
const perStatus = 256

var errNoUIDs = func() error {
	f := datamovement.NewFault(datamovement.ErrInvalid, datamovement.ReasonInvalidField, "uids are missing: give at least one")
	f.Field = "uids"
	return f
}()

func (v version2) Cancel(ctx context.Context, r *pb2.CancelRequest) (*pb2.CancelResponse, error) {
	uids, err := v.each(ctx, datamovement.WorkflowV2(r.GetWorkflow()), r.GetUids(), func(c Call, n snapshot, f *feed) (bool, error) {
		if n.ended() {
			return false, nil
		}
		return true, v.s.cancel(ctx, c, f, n.dm)
	})
	return &pb2.CancelResponse{Uids: uids}, typedError(err)
}

func (v version2) Delete(ctx context.Context, r *pb2.DeleteRequest) (*pb2.DeleteResponse, error) {
	w := datamovement.WorkflowV2(r.GetWorkflow())
	_, err := v.each(ctx, w, r.GetUids(), func(_ Call, n snapshot, _ *feed) (bool, error) {
		if !n.ended() && (!n.dm.Spec.Cancel || datamovement.Started(n.dm)) {
			return false, stillActive(n.uid)
		}
		return true, nil
	})
	if err != nil {
		return nil, typedError(err)
	}
	uids, err := v.each(ctx, w, r.GetUids(), func(c Call, n snapshot, _ *feed) (bool, error) {
		err := v.s.Delete(ctx, c, w, n.uid)
		if errors.Is(err, datamovement.ErrNotFound) {
			err = nil // somebody was faster
		}
		return true, err
	})
	return &pb2.DeleteResponse{Uids: uids}, typedError(err)
}

// each does something for all of a group, by their newest state, and returns the
// uids for which do says so.
func (v version2) each(ctx context.Context, w datamovement.WorkflowRef, names []string, do func(Call, snapshot, *feed) (bool, error)) ([]string, error) {
	c := callOf(ctx)
	if len(names) == 0 {
		return nil, v.s.judged(c, w.Namespace+"/"+w.Name, errNoUIDs)
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
