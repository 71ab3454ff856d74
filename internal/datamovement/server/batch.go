package server

import (
	"context"
	"crypto/rand"
	"time"

	"github.com/compute-daemons/compute-daemons/internal/datamovement"
)

// pair is what one part of a batch copies.
type pair struct{ source, destination string }

// made is what became of one pair: a uid, or an error.
type made struct {
	uid string
	err error
}

// CreateBatch makes a movement for each pair, with what else r says. key is the
// caller's own, or empty. What is wrong with the batch as a whole is the error;
// what is wrong with one pair is in its result.
func (s *Service) CreateBatch(ctx context.Context, c Call, r datamovement.Request, pairs []pair, key string) (string, []made, error) {
	object := r.Workflow.Namespace + "/" + r.Workflow.Name
	now := s.settings.Load()
	switch {
	case len(pairs) == 0:
		f := datamovement.NewFault(datamovement.ErrInvalid, datamovement.ReasonInvalidField, "pairs are missing: give at least one")
		f.Field = "pairs"
		return "", nil, s.judged(c, object, f)
	case len(pairs) > now.Limits.BatchSize:
		s.record(c, object, "too many pairs in one batch")
		return "", nil, datamovement.LimitExceeded("limits.batch_size")
	}
	whole := r
	whole.Source, whole.Destination, whole.Key = "/source", "/destination", key
	if err := whole.Check(now.Choices); err != nil {
		return "", nil, s.judged(c, object, err)
	}
	j, id, err := s.job(ctx, c, r.Workflow, time.Now().Add(-s.window()))
	if err != nil {
		return "", nil, s.judged(c, object, err)
	}
	unique := key
	if unique == "" {
		unique = rand.Text()
	}
	r.Batch = datamovement.BatchHandle(s.o.Node, string(j.workflow.UID), id.UID, unique)
	handle, out := "", make([]made, 0, len(pairs))
	for i, p := range pairs {
		if err := ctx.Err(); err != nil {
			return "", nil, err // nobody would read the answer
		}
		r.Source, r.Destination, r.Key = p.source, p.destination, datamovement.BatchKey(key, i)
		uid, err := s.part(ctx, c, r)
		if err == nil {
			handle = r.Batch
		}
		out = append(out, made{uid, err})
	}
	return handle, out, nil
}

// part makes one of them. The workflow is checked for each, for a long batch takes
// its time: jobs remember what that costs.
func (s *Service) part(ctx context.Context, c Call, r datamovement.Request) (string, error) {
	if err := s.mayCreate(c); err != nil {
		return "", err
	}
	err := r.Check(s.settings.Load().Choices)
	uid := ""
	if err == nil {
		uid, err = s.create(ctx, c, r)
	}
	return uid, s.judged(c, r.Workflow.Namespace+"/"+r.Workflow.Name, err)
}
