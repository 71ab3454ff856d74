package server

import (
	"context"
	"errors"

	"google.golang.org/grpc"

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

func (v version2) Watch(r *pb2.WatchRequest, stream grpc.ServerStreamingServer[pb2.WatchResponse]) error {
	ctx := stream.Context()
	g, err := v.s.group(ctx, callOf(ctx), datamovement.WorkflowV2(r.GetWorkflow()), r.GetUids())
	if err != nil {
		return typedError(err)
	}
	defer g.release()
	var next pb2.WatchResponse
	first := true
	var lost error
	err = g.follow(ctx, func(n snapshot) { next.Movements = append(next.Movements, movementStatus(n)) }, func() error {
		if len(next.Movements) == 0 && !first {
			return nil
		}
		lost = stream.Send(&pb2.WatchResponse{Movements: next.Movements})
		next.Movements, first = nil, false
		return lost
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
	last := make(map[string]*pb2.MovementStatus, len(g.members))
	err = g.follow(ctx, func(n snapshot) { last[n.uid] = movementStatus(n) }, func() error { return nil })
	if err != nil {
		return nil, typedError(err)
	}
	out := new(pb2.WaitResponse)
	for _, m := range g.members {
		out.Movements = append(out.Movements, last[m.uid])
	}
	return out, nil
}

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
