package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	v2 "github.com/compute-daemons/compute-daemons/internal/api/datamovement/v2"
	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// Describe returns what the caller can copy with a workflow, apart from the limits of the
// transport. Callers are authorised as for Create, and a call counts as a creation. The
// requests to the API server, and the error, are the same for a workflow of another user and
// for one that does not exist.
func (s *Service) Describe(ctx context.Context, c datamovement.Caller, w datamovement.WorkflowRef) (*v2.DescribeResponse, error) {
	if err := s.allowCreation(c); err != nil {
		return nil, err
	}
	object := w.Namespace + "/" + w.Name
	if err := w.Check(); err != nil {
		return nil, s.fault(c, object, err)
	}
	since := time.Now()
	j, id, err := s.job(ctx, c, w, since)
	if j == nil {
		return nil, datamovement.WithoutStep(s.fault(c, object, err))
	}
	st := j.workflow.Status
	out := &v2.DescribeResponse{Node: s.o.Node, State: clip(st.State), Status: clip(st.Status), Error: datamovement.ProblemV2(err), Limits: s.limits()}
	if err == nil {
		s.describeStorage(ctx, c, j, w, since, out)
	}
	systems, _, err := s.look.systems.get(ctx, min(refreshAfter, s.settings.Load().LookupExpiry))
	if out.DestinationsError = datamovement.ProblemV2(s.fault(c, object, err)); err == nil {
		list, omitted := datamovement.DestinationsV2(systems)
		out.Destinations, out.DestinationsOmitted = list, int32(omitted)
	}
	if movements, bytes, err := s.used(ctx, int64(id.UID)); s.fault(c, object, err) == nil {
		out.Limits.MovementsUsed, out.Limits.MovementBytesUsed = &movements, &bytes
	}
	if err := ctx.Err(); err != nil {
		return nil, err // the client has disconnected
	}
	return out, nil
}

// describeStorage adds the mounts of the workflow on this node. For each of them, it looks up
// what a copy of all its data would need.
func (s *Service) describeStorage(ctx context.Context, c datamovement.Caller, j *job, w datamovement.WorkflowRef, since time.Time, out *v2.DescribeResponse) {
	object := w.Namespace + "/" + w.Name
	mounts, err := j.latest(ctx, s.look, s.o.Node)
	if err != nil {
		out.StorageError = datamovement.ProblemV2(s.fault(c, object, err))
		return
	}
	list, omitted := datamovement.DescribedMounts(mounts)
	out.StorageOmitted = int32(omitted)
	for _, m := range list {
		r, err := datamovement.RequestFrom(w, m, s.settings.Load().Choices)
		if err == nil {
			_, err = s.locate(ctx, j, r, since)
		}
		// A file system that is not supported is not a refused request.
		if err != nil && !errors.Is(err, datamovement.ErrInvalid) {
			err = s.fault(c, object, err)
		}
		out.Storage = append(out.Storage, datamovement.StorageV2(m, datamovement.WithoutStep(err)))
	}
}

// limits returns the limits of one user that the service applies.
func (s *Service) limits() *v2.Limits {
	now := s.settings.Load()
	l := now.Limits
	return &v2.Limits{
		Movements: int64(l.Movements), MovementBytes: l.MovementBytes, CreateBurst: int64(l.CreateBurst), CreatesPerSecond: int64(l.CreatesPerSecond),
		BatchSize: int64(l.BatchSize), Streams: int64(l.Streams), Waiters: int64(l.Waiters), MaxWait: durationpb.New(now.MaxWait),
	}
}
